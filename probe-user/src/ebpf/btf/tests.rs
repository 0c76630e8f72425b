use super::*;

/// Makes type information by hand: strings, and types as words.
struct Builder {
    strings: Vec<u8>,
    types: Vec<u32>,
}

impl Builder {
    fn new() -> Self {
        Builder { strings: vec![0], types: Vec::new() }
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).expect("small");
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn add(&mut self, name: &str, kind: u32, count: u32, bit_fields: bool, rest: &[u32]) {
        let name = self.string(name);
        self.types.extend([name, kind << 24 | u32::from(bit_fields) << 31 | count, 0]);
        self.types.extend(rest);
    }

    fn finish(self) -> Vec<u8> {
        let types: Vec<u8> = self.types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("small");
        let header = [0x0001_eb9f, 24, 0, length(&types), length(&types), length(&self.strings)];
        header.iter().flat_map(|word| word.to_le_bytes()).chain(types).chain(self.strings).collect()
    }
}

fn example() -> Vec<u8> {
    let mut builder = Builder::new();
    // 1: int, 2: array, 3: anonymous union, 4: sock with the union inside, 5: with bit fields, 6: enum64.
    builder.add("int", 1, 0, false, &[32]);
    builder.add("", KIND_ARRAY, 0, false, &[1, 1, 4]);
    let (inner_a, inner_b) = (builder.string("addr"), builder.string("pair"));
    builder.add("", KIND_UNION, 2, false, &[inner_a, 1, 0, inner_b, 1, 32]);
    let first = builder.string("first");
    builder.add("sock", KIND_STRUCT, 2, false, &[first, 1, 0, 0, 3, 64]);
    let (flag, plain) = (builder.string("flag"), builder.string("plain"));
    builder.add("bits", KIND_STRUCT, 2, true, &[flag, 1, 1 << 24 | 3, plain, 1, 32]);
    builder.add("big", 19, 1, false, &[first, 1, 0]);
    builder.add("sock", KIND_STRUCT, 1, false, &[first, 1, 128]);
    builder.finish()
}

#[test]
fn members_are_found_also_inside_anonymous_unions() {
    let btf = Btf::parse(example(), &["sock", "bits"]).expect("well formed");
    assert_eq!(btf.offset("sock", "first"), Some(0), "the first definition of a name");
    assert_eq!(btf.offset("sock", "addr"), Some(8));
    assert_eq!(btf.offset("sock", "pair"), Some(12));
    assert_eq!(btf.offset("sock", "nothing"), None);
    assert_eq!(btf.offset("bits", "plain"), Some(4));
    assert_eq!(btf.offset("bits", "flag"), None, "a bit field has no offset in bytes");
    assert_eq!(btf.offset("big", "first"), None, "not asked for");
}

#[test]
fn no_damage_makes_it_panic() {
    let good = example();
    for length in 0..good.len() {
        if let Ok(btf) = Btf::parse(good[..length].to_vec(), &["sock"]) {
            btf.offset("sock", "addr");
        }
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            if let Ok(btf) = Btf::parse(bad, &["sock", "bits"]) {
                btf.offset("sock", "addr");
                btf.offset("bits", "flag");
            }
        }
    }
}

#[test]
fn the_running_kernel_has_what_the_programs_read() {
    if !Path::new(KERNEL).exists() {
        return;
    }
    let btf = Btf::read(Path::new(KERNEL), &["sock_common", "task_struct"]).expect("readable");
    assert_eq!(btf.offset("sock_common", "skc_family"), Some(16));
    assert_eq!(btf.offset("sock_common", "skc_num"), Some(14));
    assert!(btf.offset("task_struct", "tgid").is_some_and(|offset| offset > 0));
}

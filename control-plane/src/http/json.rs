//! Writes JSON as Weave Scope's encoder did: floats always with a point or an exponent, and `<`, `>`, `&` escaped.

/// Writes one JSON text. Commas come by themselves; the caller keeps objects and arrays balanced.
#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    out: Vec<u8>,
    /// Whether a value stands before the next one at this level.
    comma: bool,
}

impl JsonWriter {
    pub(crate) fn new() -> Self {
        JsonWriter { out: Vec::with_capacity(512), comma: false }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// `{ … }` as a value.
    pub(crate) fn object(&mut self, fields: impl FnOnce(&mut Self)) {
        self.enclosed(b'{', fields, b'}');
    }

    /// `[ … ]` as a value.
    pub(crate) fn array<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        self.enclosed(
            b'[',
            |json| {
                for it in items {
                    item(json, it);
                }
            },
            b']',
        );
    }

    /// The key of the value that is written next.
    pub(crate) fn key(&mut self, key: &str) -> &mut Self {
        self.separate();
        self.quoted(key);
        self.out.push(b':');
        self.comma = false;
        self
    }

    pub(crate) fn string(&mut self, text: &str) {
        self.separate();
        self.quoted(text);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.literal(if value { "true" } else { "false" });
    }

    pub(crate) fn null(&mut self) {
        self.literal("null");
    }

    pub(crate) fn integer(&mut self, value: u64) {
        use std::io::Write as _;
        self.separate();
        write!(self.out, "{value}").expect("a Vec takes everything");
    }

    /// Any value; numbers as they are.
    pub(crate) fn value(&mut self, value: &serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(*value),
            Value::Number(number) => self.literal(&number.to_string()),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.array(items, |json, item| json.value(item)),
            Value::Object(fields) => self.object(|json| fields.iter().for_each(|(key, value)| json.key(key).value(value))),
        }
    }

    pub(crate) fn signed(&mut self, value: i64) {
        self.literal(&value.to_string());
    }

    /// Always with a point or an exponent. What JSON cannot say (not a number, infinite) becomes zero.
    pub(crate) fn float(&mut self, value: f64) {
        use std::io::Write as _;
        self.separate();
        let value = if value.is_finite() { value } else { 0.0 };
        write!(self.out, "{value:?}").expect("a Vec takes everything");
    }

    fn literal(&mut self, text: &str) {
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
    }

    fn enclosed(&mut self, open: u8, inside: impl FnOnce(&mut Self), close: u8) {
        self.separate();
        self.out.push(open);
        self.comma = false;
        inside(self);
        self.out.push(close);
        self.comma = true;
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    fn quoted(&mut self, text: &str) {
        self.out.push(b'"');
        let mut plain_from = 0;
        for (at, byte) in text.bytes().enumerate() {
            // Nearly all of them are plain.
            if !MAY_ESCAPE[usize::from(byte)] {
                continue;
            }
            let Some(escape) = escape(byte, &text.as_bytes()[at..]) else { continue };
            self.out.extend_from_slice(&text.as_bytes()[plain_from..at]);
            match escape {
                Escape::Short(letter) => self.out.extend_from_slice(&[b'\\', letter]),
                Escape::Code => {
                    self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])
                }
                Escape::Separator => {
                    // U+2028 and U+2029 are three bytes, of which the last tells them apart.
                    let last = text.as_bytes()[at + 2] & 15;
                    self.out.extend_from_slice(&[b'\\', b'u', b'2', b'0', b'2', HEX[usize::from(last)]]);
                }
            }
            plain_from = at + escape.length();
        }
        self.out.extend_from_slice(&text.as_bytes()[plain_from..]);
        self.out.push(b'"');
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bytes that [`escape`] has something to say about.
const MAY_ESCAPE: [bool; 256] = {
    let mut table = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        table[control] = true;
        control += 1;
    }
    let others = [b'"', b'\\', b'<', b'>', b'&', 0x7f, 0xe2];
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[derive(Clone, Copy)]
enum Escape {
    Short(u8),
    Code,
    Separator,
}

impl Escape {
    fn length(self) -> usize {
        match self {
            Escape::Short(_) | Escape::Code => 1,
            Escape::Separator => 3,
        }
    }
}

fn escape(byte: u8, rest: &[u8]) -> Option<Escape> {
    match byte {
        b'"' | b'\\' => Some(Escape::Short(byte)),
        b'\n' => Some(Escape::Short(b'n')),
        b'\r' => Some(Escape::Short(b'r')),
        b'\t' => Some(Escape::Short(b't')),
        b'<' | b'>' | b'&' | 0..=0x1f | 0x7f => Some(Escape::Code),
        0xe2 if matches!(rest, [_, 0x80, 0xa8 | 0xa9, ..]) => Some(Escape::Separator),
        _ => None,
    }
}

/// `text` as a JSON string, which is how Scope says what went wrong.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let mut json = JsonWriter::new();
    json.string(text);
    json.into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut JsonWriter)) -> String {
        let mut json = JsonWriter::new();
        write(&mut json);
        String::from_utf8(json.into_bytes()).unwrap()
    }

    #[test]
    fn floats_always_have_a_point_or_an_exponent() {
        for (value, text) in [(0.0, "0.0"), (14_502_912.0, "14502912.0"), (1.25, "1.25"), (1e300, "1e300"), (f64::NAN, "0.0")] {
            assert_eq!(written(|json| json.float(value)), text);
        }
    }

    #[test]
    fn what_could_be_html_is_escaped() {
        assert_eq!(written(|json| json.string("a;<host>&\u{2028}\u{2029}\u{1}\n")), r#""a;\u003chost\u003e\u0026\u2028\u2029\u0001\n""#);
    }

    #[test]
    fn commas_stand_between_values_only() {
        let text = written(|json| {
            json.object(|json| {
                json.key("a").array([1, 2], JsonWriter::integer);
                json.key("b").object(|_| {});
                json.key("c").array([0_u64; 0], JsonWriter::integer);
                json.key("d").null();
            });
        });
        assert_eq!(text, r#"{"a":[1,2],"b":{},"c":[],"d":null}"#);
    }

    proptest! {
        #[test]
        fn every_text_comes_back_as_it_was(text in any::<String>()) {
            let decoded: String = serde_json::from_slice(&string(&text)).unwrap();
            prop_assert_eq!(decoded, text);
        }

        #[test]
        fn every_float_comes_back_as_it_was(value in proptest::num::f64::NORMAL) {
            let decoded: f64 = written(|json| json.float(value)).parse().unwrap();
            prop_assert_eq!(decoded, value);
        }
    }
}

//! Words and numbers out of the kernel's text files, without an allocation. Total: whatever the bytes are, the answer is a value or `None`.

/// Lines without their ends.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|&byte| byte == b'\n')
}

/// Words between blanks.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// A decimal number and nothing else but blanks around it. One that does not fit into 64 bits is none.
pub fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit <= 9)?;
        number.checked_mul(10)?.checked_add(digit.into())
    })
}

/// A finite number that is not negative.
pub fn decimal(bytes: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(bytes).ok()?.trim().parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

/// The number after `name` on the line that begins with it: the format of `memory.stat`, `cpu.stat` and their kind.
pub fn field(bytes: &[u8], name: &[u8]) -> Option<u64> {
    lines(bytes).find_map(|line| number(line.strip_prefix(name)?.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_digits_that_fit() {
        assert_eq!(number(b" 18446744073709551615\n"), Some(u64::MAX));
        for odd in [&b""[..], b" ", b"18446744073709551616", b"-1", b"+1", b"1 2", b"max", b"0x1"] {
            assert_eq!(number(odd), None, "{odd:?}");
        }
    }

    #[test]
    fn a_field_is_named_whole() {
        let text = b"total_cache_x 1\ntotal_cache 2\ntotal_cache 3\n";
        assert_eq!(field(text, b"total_cache"), Some(2));
        assert_eq!(field(text, b"cache"), None);
    }

    #[test]
    fn what_is_no_finite_number_is_none() {
        assert_eq!(decimal(b"0.25 "), Some(0.25));
        for odd in [&b"nan"[..], b"inf", b"-1", b"", b"1e999", b"\xff"] {
            assert_eq!(decimal(odd), None, "{odd:?}");
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_back(written in any::<u64>()) {
            prop_assert_eq!(number(written.to_string().as_bytes()), Some(written));
        }

        #[test]
        fn arbitrary_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            number(&bytes);
            decimal(&bytes);
            field(&bytes, b"x");
            lines(&bytes).for_each(|line| words(line).for_each(drop));
        }
    }
}

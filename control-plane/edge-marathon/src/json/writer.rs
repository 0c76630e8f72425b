//! Writes JSON. Whole numbers never get a decimal point: some clients read them into integers.

use scheduler::moment::iso;

use base::Timestamp;

/// A JSON text being written. Commas come by themselves; the caller keeps objects and arrays balanced.
#[derive(Debug, Default)]
pub(crate) struct Json {
    out: Vec<u8>,
    comma: bool,
}

impl Json {
    pub(crate) fn new() -> Json {
        Json { out: Vec::with_capacity(1_024), comma: false }
    }

    /// The text of what `write` writes.
    pub(crate) fn text(write: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::new();
        write(&mut json);
        String::from_utf8(json.out).unwrap_or_default()
    }

    pub(crate) fn bytes(write: impl FnOnce(&mut Json)) -> Vec<u8> {
        let mut json = Json::new();
        write(&mut json);
        json.out
    }

    pub(crate) fn object(&mut self, fields: impl FnOnce(&mut Json)) {
        self.separate();
        self.out.push(b'{');
        self.comma = false;
        fields(self);
        self.out.push(b'}');
        self.comma = true;
    }

    pub(crate) fn array<T>(&mut self, items: impl IntoIterator<Item = T>, mut item: impl FnMut(&mut Json, T)) {
        self.separate();
        self.out.push(b'[');
        self.comma = false;
        for it in items {
            item(self, it);
        }
        self.out.push(b']');
        self.comma = true;
    }

    /// The key of the value that is written next.
    pub(crate) fn key(&mut self, key: &str) -> &mut Json {
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
        self.raw(if value { "true" } else { "false" });
    }

    pub(crate) fn null(&mut self) {
        self.raw("null");
    }

    pub(crate) fn integer(&mut self, value: impl Into<i128>) {
        self.raw(&value.into().to_string());
    }

    /// A text that is JSON already.
    pub(crate) fn raw(&mut self, text: &str) {
        self.separate();
        self.out.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn number(&mut self, value: f64) {
        let value = if value.is_finite() { value } else { 0.0 };
        if value.fract() == 0.0 && value.abs() < 1e15 {
            #[expect(clippy::cast_possible_truncation, reason = "whole and small as checked")]
            let whole = value as i64;
            self.raw(&whole.to_string());
        } else {
            self.raw(&format!("{value}"));
        }
    }

    // Fields, by the kind of their value.

    pub(crate) fn text_field(&mut self, key: &str, value: &str) {
        self.key(key).string(value);
    }

    pub(crate) fn text_if(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text_field(key, value);
        }
    }

    pub(crate) fn number_field(&mut self, key: &str, value: f64) {
        self.key(key).number(value);
    }

    pub(crate) fn integer_field(&mut self, key: &str, value: impl Into<i128>) {
        self.key(key).integer(value);
    }

    pub(crate) fn bool_field(&mut self, key: &str, value: bool) {
        self.key(key).bool(value);
    }

    pub(crate) fn time_field(&mut self, key: &str, at: Timestamp) {
        self.key(key).string(&iso(at));
    }

    pub(crate) fn time_if(&mut self, key: &str, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.time_field(key, at);
        }
    }

    pub(crate) fn texts_field<T: AsRef<str>>(&mut self, key: &str, items: impl IntoIterator<Item = T>) {
        self.key(key).array(items, |json, item| json.string(item.as_ref()));
    }

    pub(crate) fn object_field(&mut self, key: &str, fields: impl FnOnce(&mut Json)) {
        self.key(key).object(fields);
    }

    pub(crate) fn array_field<T>(&mut self, key: &str, items: impl IntoIterator<Item = T>, item: impl FnMut(&mut Json, T)) {
        self.key(key).array(items, item);
    }

    pub(crate) fn labels_field<'a>(&mut self, key: &str, labels: impl IntoIterator<Item = (&'a String, &'a String)>) {
        self.key(key).object(|json| {
            for (name, value) in labels {
                json.text_field(name, value);
            }
        });
    }

    fn separate(&mut self) {
        if self.comma {
            self.out.push(b',');
        }
        self.comma = true;
    }

    fn quoted(&mut self, text: &str) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        self.out.push(b'"');
        let bytes = text.as_bytes();
        let mut plain_from = 0;
        for (at, byte) in bytes.iter().enumerate() {
            let short = match byte {
                b'"' | b'\\' => *byte,
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0..=0x1f | 0x7f => 0,
                _ => continue,
            };
            self.out.extend_from_slice(&bytes[plain_from..at]);
            if short == 0 {
                self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            } else {
                self.out.extend_from_slice(&[b'\\', short]);
            }
            plain_from = at + 1;
        }
        self.out.extend_from_slice(&bytes[plain_from..]);
        self.out.push(b'"');
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whole_numbers_have_no_point() {
        for (value, text) in [(60.0, "60"), (0.1, "0.1"), (-3.0, "-3"), (1.15, "1.15"), (f64::NAN, "0")] {
            assert_eq!(Json::text(|json| json.number(value)), text);
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back_as_it_was(text in any::<String>()) {
            let decoded: String = serde_json::from_str(&Json::text(|json| json.string(&text))).unwrap();
            prop_assert_eq!(decoded, text);
        }
    }
}

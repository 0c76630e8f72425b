//! Texts and numbers as JSON.

use std::io::Write as _;

/// Appends `text` as a JSON string in ASCII.
pub fn push_text(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let escape = |unit: u16, out: &mut Vec<u8>| {
        out.extend_from_slice(b"\\u");
        for shift in [12, 8, 4, 0] {
            out.push(HEX[usize::from(unit >> shift & 0xf)]);
        }
    };
    out.push(b'"');
    // What needs no escape is nearly everything, and goes over in one piece.
    let mut plain = 0;
    let bytes = text.as_bytes();
    for (at, char) in text.char_indices() {
        if matches!(char, ' '..='~') && char != '"' && char != '\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + char.len_utf8();
        match char {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            other => {
                let mut units = [0; 2];
                other.encode_utf16(&mut units).iter().for_each(|unit| escape(*unit, out));
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends a floating-point number: `4.0`, never `4`, and a text for what JSON cannot say.
pub fn push_number(number: f64, out: &mut Vec<u8>) {
    if number.is_finite() {
        // Writing to a Vec does not fail.
        let _ = serde_json::to_writer(&mut *out, &number);
    } else {
        let word = if number.is_nan() {
            "\"NaN\""
        } else if number > 0.0 {
            "\"Infinity\""
        } else {
            "\"-Infinity\""
        };
        out.extend_from_slice(word.as_bytes());
    }
}

/// Appends an integer.
pub(super) fn push_integer(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    let _ = write!(out, "{number}");
}

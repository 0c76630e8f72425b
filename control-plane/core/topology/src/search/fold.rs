//! One form for texts that people take for the same: without case, accents and compatibility forms.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::{compose, is_combining_mark};

/// A text as searches compare it. A line break becomes a blank: lines separate texts in the index.
pub(super) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_into(text, &mut folded);
    folded
}

/// [`fold`], behind what is there.
pub(super) fn fold_into(text: &str, out: &mut String) {
    if text.is_ascii() {
        // Nearly all texts: no accents, no forms.
        out.extend(text.bytes().map(|byte| match byte {
            b'\n' | b'\r' => ' ',
            other => char::from(other.to_ascii_lowercase()),
        }));
        return;
    }
    fold_letters(text, true, |letter, _| out.push(letter));
}

/// The folded text, and for each of its bytes the number of the character that it comes from.
pub(super) fn fold_with_places(text: &str) -> (String, Vec<u32>) {
    let (mut folded, mut places) = (String::with_capacity(text.len()), Vec::with_capacity(text.len()));
    fold_letters(text, true, |letter, place| {
        folded.push(letter);
        places.resize(folded.len(), place);
    });
    (folded, places)
}

/// The source of a regular expression without accents and forms. Its case stays: `\S` is not `\s`.
pub(super) fn fold_source(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    fold_letters(text, false, |letter, _| folded.push(letter));
    folded
}

/// A field's name as queries compare it: letters and digits alone, folded.
pub(super) fn reduce(name: &str) -> String {
    let mut reduced = fold(name);
    reduced.retain(char::is_alphanumeric);
    reduced
}

/// Tells each folded letter, and the number of the character that it comes from. Parts of a Korean syllable become one letter again, whether
/// the text had them apart or not, so that syllables can be counted and stand in ranges.
fn fold_letters(text: &str, lower: bool, mut tell: impl FnMut(char, u32)) {
    let mut last: Option<(char, u32)> = None;
    for (place, letter) in (0_u32..).zip(text.chars()) {
        for part in fold_letter(letter, lower) {
            last = match last {
                Some((before, from)) if let Some(whole) = compose(before, part) => Some((whole, from)),
                Some((before, from)) => {
                    tell(before, from);
                    Some((part, place))
                }
                None => Some((part, place)),
            };
        }
    }
    last.into_iter().for_each(|(letter, from)| tell(letter, from));
}

/// `é` and `e`, `Ａ` and `A` are the same. What is no letter may be part of an expression and stays.
fn fold_letter(letter: char, lower: bool) -> impl Iterator<Item = char> {
    let is_break = matches!(letter, '\n' | '\r');
    let parts = letter.is_alphanumeric().then(|| std::iter::once(letter).nfkd().filter(|part| !is_combining_mark(*part)));
    let other = (!letter.is_alphanumeric() && !is_combining_mark(letter)).then_some(if is_break { ' ' } else { letter });
    parts.into_iter().flatten().chain(other).flat_map(move |it| {
        let lowered = lower.then(|| it.to_lowercase());
        // The two small sigmas are one letter.
        lowered.into_iter().flatten().chain((!lower).then_some(it)).map(|it| if it == 'ς' { 'σ' } else { it })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_accents_and_forms_are_gone() {
        assert_eq!(fold("CAFÉ ｎｇｉｎｘ ΣΊΣΥΦΟΣ\n"), "cafe nginx σισυφοσ ");
        assert_eq!(fold("東京-ガード"), fold("東京-ｶﾞｰﾄﾞ"));
        assert_eq!(fold("Plain ASCII\r"), "plain ascii ");
        assert_eq!(fold_source(r"É\S+"), r"E\S+");
        assert_eq!(reduce("Restart #"), "restart");
        assert_eq!(reduce("É\u{301}quipe-Größe"), reduce("equipegröße"));
    }

    #[test]
    fn korean_syllables_stay_whole_and_parts_of_them_become_whole() {
        assert_eq!(fold("한국"), "한국");
        assert_eq!(fold("\u{1112}\u{1161}\u{11ab}국-web"), "한국-web");
        assert_eq!(fold_source("[가-힣]+"), "[가-힣]+");
        assert_eq!(fold_with_places("x\u{1112}\u{1161}\u{11ab}국"), ("x한국".to_owned(), vec![0, 1, 1, 1, 4, 4, 4]));
    }

    #[test]
    fn every_byte_knows_its_character() {
        let (folded, places) = fold_with_places("aé½");
        assert_eq!(folded, "ae1⁄2");
        assert_eq!(places, [0, 1, 2, 2, 2, 2, 2]);
    }
}

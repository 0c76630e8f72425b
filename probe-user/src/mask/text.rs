//! Secrets behind a name and a `=` or `:`, and in addresses.

use std::ops::Range;

use super::{Hidden, Masks, names};

/// A user's name without a password that is at least as long as this is a token.
const TOKEN_MIN: usize = 20;

/// Longest password in a data source that is looked for, in characters.
const PASSWORD_MAX: usize = 256;

/// How tokens begin that are shorter.
const TOKENS: [&str; 8] = ["ghp_", "gho_", "ghs_", "ghu_", "glpat-", "gldt-", "dckr_", "xox"];

/// Addresses that let in whoever knows the rest of them.
const HOOKS: [&str; 6] = [
    "hooks.slack.com/services/",
    "hooks.slack.com/workflows/",
    "discord.com/api/webhooks/",
    "discordapp.com/api/webhooks/",
    "api.telegram.org/bot",
    "webhook.office.com/webhookb2/",
];

/// Where secrets are in `text`.
pub(super) fn hide(masks: &Masks, text: &str, hidden: &mut Hidden) {
    let has_source = masks.well_known && (text.contains("@tcp(") || text.contains("@unix("));
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find(['=', ':']).map(|it| at + it) {
        at = found + 1;
        let secret = if masks.well_known && text[found..].starts_with("://") {
            in_address(text, found + 3)
        } else {
            behind(masks, text, done, found).or_else(|| has_source.then(|| in_source(text, found)).flatten())
        };
        if let Some(secret) = secret.filter(|it| !it.is_empty()) {
            done = secret.end;
            at = secret.end;
            hidden.add(secret);
        }
    }
}

/// Where the secret is in an address whose authority begins at `begin`.
fn in_address(text: &str, begin: usize) -> Option<Range<usize>> {
    let ends = |it: char| it.is_whitespace() || matches!(it, '"' | '\'' | '|');
    let address = &text[begin..];
    let authority = &address[..address.find(|it| ends(it) || matches!(it, '/' | '?' | '#' | ',' | ';')).unwrap_or(address.len())];
    if let Some(at) = authority.rfind('@') {
        let user = &authority[..at];
        return match user.find(':') {
            Some(colon) => Some(begin + colon + 1..begin + at),
            None if at >= TOKEN_MIN || TOKENS.iter().any(|token| user.starts_with(token)) => Some(begin..begin + at),
            None => None,
        };
    }
    // The host may have a name before this one.
    let hook = HOOKS.iter().find_map(|hook| {
        let host = hook.split('/').next().filter(|host| authority.ends_with(host))?;
        let path = address[authority.len()..].strip_prefix(&hook[host.len()..])?;
        Some(address.len() - path.len())
    });
    hook.map(|hook| begin + hook..begin + address.find(ends).unwrap_or(address.len()))
}

/// Where the password is in a data source of Go's driver of MySQL, `user:password@tcp(host)/database`, behind the colon at `colon`.
fn in_source(text: &str, colon: usize) -> Option<Range<usize>> {
    let rest = text[colon..].strip_prefix(':')?;
    // A text that is all colons is not looked through for each of them.
    let end = rest.char_indices().take(PASSWORD_MAX).find(|(_, it)| it.is_whitespace() || matches!(it, '(' | '"' | '\''));
    let word = &rest[..end?.0];
    let password = word.strip_suffix("@tcp").or_else(|| word.strip_suffix("@unix"))?;
    rest[word.len()..].starts_with('(').then_some(colon + 1..colon + 1 + password.len())
}

/// Where the secret is that a name before the `=` or `:` at `separator` announces. `from`: what is before it is done.
fn behind(masks: &Masks, text: &str, from: usize, separator: usize) -> Option<Range<usize>> {
    let before = text[from..separator].trim_end_matches(['"', '\'', ' ', '\\']);
    let is_colon = text[separator..].starts_with(':');
    let name_begin =
        before.rfind(|it: char| !names::is_name_character(it)).map_or(0, |it| it + before[it..].chars().next().map_or(1, char::len_utf8));
    let mut name = &before[name_begin..];
    // curl takes a header in the argument of the option as well.
    if is_colon && let Some(header) = name.strip_prefix("-H").filter(|it| it.starts_with(|it: char| it.is_ascii_uppercase())) {
        name = header;
    }
    name = name.trim_start_matches('-');
    let precedes = before[..name_begin].chars().next_back();
    let is_parameter = !is_colon && matches!(precedes, Some('?' | '&')) && masks.well_known && names::hides_parameter(name);
    let hides = is_parameter || if is_colon { masks.hides_option(name) } else { masks.hides_assigned(name) };
    if name.is_empty() || !hides {
        return None;
    }
    let is_header = is_colon
        && masks.well_known
        && names::is_header(name)
        && precedes.is_none_or(|it| it.is_whitespace() || matches!(it, '"' | '\'' | '='));
    let rest = &text[separator + 1..];
    let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
    let mut begin = separator + 1 + blank;
    let scheme = names::scheme(&text[begin..]).filter(|_| is_colon || blank == 0);
    let escapes = text[begin..].bytes().take_while(|it| *it == b'\\').count();
    let quote = text[begin + escapes..].chars().next().filter(|it| matches!(it, '"' | '\''));
    // A name and a colon alone are common in paths and images; a secret follows after a blank or a quote.
    if is_colon && blank == 0 && quote.is_none() && scheme.is_none() && !is_header {
        return None;
    }
    // Nor is a word that says how what follows is to be read.
    if !is_colon && blank > 0 || is_header && names::is_scheme(&text[begin..]) {
        return None;
    }
    if let Some(quote) = quote {
        begin += escapes + 1;
        return Some(begin..closing(text, begin, quote, escapes));
    }
    begin += scheme.map_or(0, |(length, _)| length);
    let end_of_line = || text[begin..].find('\n').map_or(text.len(), |it| begin + it);
    let end = match precedes {
        // The whole argument, or the whole of what stands in quotes.
        Some(quote @ ('"' | '\'')) if is_header && names::is_whole_header(name) => closing(text, begin, quote, 0),
        None | Some('=') if is_header && from == 0 && names::is_whole_header(name) => text.len(),
        _ if scheme.is_some_and(|(_, long)| long) => end_of_line(),
        _ => end_of_word(text, begin),
    };
    Some(begin..end)
}

/// Where what began behind `quote` ends, which stood behind so many `escapes`: at the next quote that is not deeper than that.
fn closing(text: &str, begin: usize, quote: char, escapes: usize) -> usize {
    let mut at = begin;
    while let Some(found) = text[at..].find(quote).map(|it| at + it) {
        let before = text[begin..found].bytes().rev().take_while(|it| *it == b'\\').count();
        if escapes == 0 && before % 2 == 0 {
            return found;
        }
        if escapes > 0 && before <= escapes {
            return found - before;
        }
        at = found + 1;
    }
    text.len()
}

/// A blank behind a backslash is a part of the word.
fn end_of_word(text: &str, begin: usize) -> usize {
    let ends = |it: char| it.is_whitespace() || matches!(it, '&' | ';' | ',' | '"' | '\'' | ')' | '|');
    let mut characters = text[begin..].char_indices().peekable();
    while let Some((at, it)) = characters.next() {
        if it == '\\' {
            let _ = characters.next_if(|(_, next)| *next == '\\' || next.is_whitespace());
        } else if ends(it) {
            return begin + at;
        }
    }
    text.len()
}

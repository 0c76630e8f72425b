//! Names of secrets: of variables, options, headers and parameters of addresses.

/// Parts of a name that make its value a secret, wherever it stands.
const WORDS: [&str; 20] = [
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "requirepass",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "accountkey",
    "privatekey",
    "encryptionkey",
    "signingkey",
    "masterkey",
    "sharedkey",
    "authkey",
    "masterauth",
    "authorization",
    "bearer",
];

/// Whole words of a name that do.
const WHOLE_WORDS: [&str; 6] = ["pass", "pwd", "pw", "auth", "passin", "passout"];

/// Last words of a name that do.
const LAST_WORDS: [&str; 3] = ["creds", "jwt", "cookies"];

/// What Erlang calls a cookie is its password, and that of a browser is a session.
const COOKIE: &str = "cookie";

/// Parts that do in the name of a variable, where a wrong guess costs less than in an option or a label, which people look for.
const VARIABLE_WORDS: [&str; 6] = ["pass", "key", "auth", "private", "dsn", "cert"];

/// Parameters of addresses that are secrets, besides.
const PARAMETERS: [&str; 6] = ["sig", "signature", "key", "xamzsignature", "xgoogsignature", "code"];

/// Variables that say where a shell works, in spite of their names.
const WORKING_DIRECTORIES: [&str; 2] = ["PWD", "OLDPWD"];

/// Last words of names that say where a secret is.
const PLACES: [&str; 6] = ["file", "path", "dir", "directory", "url", "stdin"];

/// Headers whose values are secrets, also where no blank follows the colon.
const HEADERS: [&str; 8] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "api-key", "apikey", "private-token", "job-token"];

/// What may stand before the secret of a header.
const SCHEMES: [&str; 12] =
    ["bearer", "basic", "digest", "token", "apikey", "api-key", "key", "negotiate", "ntlm", "hawk", "hmac", "aws4-hmac-sha256"];

/// Of these, those after which the rest of the line is secret, not a word of it.
const LONG_SCHEMES: [&str; 3] = ["digest", "hawk", "aws4-hmac-sha256"];

pub(super) fn hides_variable(name: &str) -> bool {
    if says_where(name) || WORKING_DIRECTORIES.contains(&name) {
        return false;
    }
    let plain = plain(name);
    VARIABLE_WORDS.iter().any(|word| plain.contains(word)) || hides_plain(&plain, name)
}

pub(super) fn hides_option(name: &str) -> bool {
    !says_where(name) && hides_plain(&plain(name), name)
}

fn hides_plain(plain: &str, name: &str) -> bool {
    WORDS.iter().any(|word| plain.contains(word))
        || plain.ends_with(COOKIE)
        || words(name).any(|it| is_one_of(&WHOLE_WORDS, it))
        || words(name).next_back().is_some_and(|last| is_one_of(&LAST_WORDS, last))
}

/// An option that says that there is no secret, or that it will be typed in: nothing follows it.
pub(super) fn is_switch(option: &str) -> bool {
    words(option).next().is_some_and(|first| is_one_of(&["no", "ask", "prompt", "skip", "without"], first))
}

/// `--key` is the name of a secret or of a file with one: which of both tells only what follows.
pub(super) fn is_key(option: &str) -> bool {
    option.eq_ignore_ascii_case("key")
}

/// What follows `--key` is a place, or says which field something is sorted by.
pub(super) fn is_no_key(value: &str) -> bool {
    let ends = [".pem", ".key", ".crt", ".der", ".p12", ".json"];
    value.starts_with(['/', '.', '~', '@'])
        || ends.iter().any(|end| value.ends_with(end))
        || value.chars().all(|it| it.is_ascii_digit() || matches!(it, ',' | '.'))
}

/// What follows `-passin` and its kind: where the password is, instead of it.
pub(super) fn is_place(value: &str) -> bool {
    ["file:", "env:", "fd:"].iter().any(|place| value.starts_with(place)) || value == "stdin"
}

/// `user:password`, as skopeo has it.
pub(super) fn is_user_and_password(option: &str) -> bool {
    words(option).next_back().is_some_and(|last| last.eq_ignore_ascii_case("creds"))
}

/// Whether a parameter of an address is a secret that would be none elsewhere.
pub(super) fn hides_parameter(name: &str) -> bool {
    PARAMETERS.contains(&plain(name).as_str())
}

/// Whether a name is known as that of a header with a secret.
pub(super) fn is_header(name: &str) -> bool {
    is_one_of(&HEADERS, name) || name.get(..2).is_some_and(|it| it.eq_ignore_ascii_case("x-"))
}

/// Whether the value of a header is secret to its end, blanks and all.
pub(super) fn is_whole_header(name: &str) -> bool {
    is_one_of(&HEADERS[..4], name)
}

/// The length of a scheme that `text` begins with, with the blanks after it, and whether what follows has several words.
pub(super) fn scheme(text: &str) -> Option<(usize, bool)> {
    let end = text.find([' ', '\t'])?;
    let scheme = &text[..end];
    let rest = text[end..].trim_start_matches([' ', '\t']);
    is_one_of(&SCHEMES, scheme).then(|| (text.len() - rest.len(), is_one_of(&LONG_SCHEMES, scheme)))
}

pub(super) fn is_scheme(text: &str) -> bool {
    is_one_of(&SCHEMES, text)
}

/// In capital letters, as names of variables are.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|it: char| it.is_ascii_uppercase() || it == '_')
        && name.chars().all(|it| it.is_ascii_uppercase() || it.is_ascii_digit() || it == '_')
}

pub(super) fn is_name_character(it: char) -> bool {
    it.is_ascii_alphanumeric() || matches!(it, '_' | '-' | '.')
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_name_character)
}

pub(super) fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|it| it.eq_ignore_ascii_case(word))
}

/// Lower case, without what separates words: `API_KEY` and `api-key` are `apikey`.
///
/// Tokens of a language model are no secrets.
fn plain(name: &str) -> String {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_lowercase()).collect();
    if plain.contains("token") { plain.replace("tokens", "").replace("tokenizer", "") } else { plain }
}

fn words(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    name.split(|it: char| !it.is_ascii_alphanumeric())
}

fn says_where(name: &str) -> bool {
    words(name).next_back().is_some_and(|last| is_one_of(&PLACES, last))
}

//! Names of frameworks and tasks as labels of DNS.

/// Longest label.
const LONGEST: usize = 63;

/// A text as one label: letters become small, dots and underscores dashes, all else goes. Empty when nothing is left.
pub(crate) fn label(text: &str) -> String {
    let mapped: String = text
        .chars()
        .filter_map(|it| match it {
            'a'..='z' | '0'..='9' => Some(it),
            'A'..='Z' => Some(it.to_ascii_lowercase()),
            '-' | '.' | '_' => Some('-'),
            _ => None,
        })
        .collect();
    let trimmed = mapped.trim_matches('-');
    trimmed[..trimmed.len().min(LONGEST)].trim_end_matches('-').to_owned()
}

/// A text as labels between dots. Empty when nothing is left.
pub(crate) fn labels(text: &str) -> String {
    text.split('.').map(label).filter(|it| !it.is_empty()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_labels() {
        for (text, one, many) in [
            ("app", "app", "app"),
            ("app.group", "app-group", "app.group"),
            ("My_App.Gruppe ä", "my-app-gruppe", "my-app.gruppe"),
            ("-x-", "x", "x"),
            ("..", "", ""),
        ] {
            assert_eq!((label(text).as_str(), labels(text).as_str()), (one, many));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_a_label(text in any::<String>()) {
            let label = label(&text);
            prop_assert!(label.len() <= LONGEST && !label.starts_with('-') && !label.ends_with('-'));
            prop_assert!(label.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-'));
        }
    }
}

//! The words of a template, as far as they can be told apart without evaluating it: what the
//! engine does not say of a text before it runs.

/// A word within `${{ }}`, or a sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'t> {
    /// A name, a number or a word of the language.
    Name(&'t str),
    /// A text between quotes.
    Text,
    Sign(char),
}

/// Names of filters that a template uses, in the order of the text.
pub(super) fn filters(text: &str) -> Vec<&str> {
    blocks(text).iter().flat_map(|(_, inner)| filters_of(inner)).collect()
}

/// The text without its expressions that end in `| shell_quote`: what of it comes from
/// elsewhere and can run as code.
pub(super) fn without_quoted(text: &str) -> String {
    let (mut rest, mut from) = (String::with_capacity(text.len()), 0);
    for (at, inner) in blocks(text) {
        if filters_of(inner).last() == Some(&"shell_quote") && ends_in_a_filter(inner) {
            rest.push_str(&text[from..at]);
            from = at + inner.len();
        }
    }
    rest.push_str(&text[from..]);
    rest
}

/// What stands within `${{ }}` and `${% %}`, and where in the text.
fn blocks(text: &str) -> Vec<(usize, &str)> {
    let (mut blocks, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].find("${") {
        let begin = from + at + 2;
        let close = match text[begin..].chars().next() {
            Some('{') => "}}",
            Some('%') => "%}",
            _ => {
                from = begin;
                continue;
            }
        };
        let begin = begin + 1;
        let length = length_until(&text[begin..], close);
        if !text[begin..].starts_with('#') {
            blocks.push((begin, &text[begin..begin + length]));
        }
        from = begin + length;
    }
    blocks
}

/// Where a sign stands that no quotes surround; the whole length if nowhere.
fn length_until(text: &str, close: &str) -> usize {
    let mut open = None;
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match open {
            Some(_) if char == '\\' => drop(chars.next()),
            Some(quote) if char == quote => open = None,
            None if text[at..].starts_with(close) => return at,
            None if matches!(char, '"' | '\'') => open = Some(char),
            Some(_) | None => {}
        }
    }
    text.len()
}

fn words(inner: &str) -> Vec<Word<'_>> {
    let (mut words, mut at) = (Vec::new(), 0);
    while let Some(char) = inner[at..].chars().next() {
        let rest = &inner[at..];
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_part(char) {
            let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
            words.push(Word::Name(&rest[..length]));
            length
        } else if matches!(char, '"' | '\'') {
            words.push(Word::Text);
            1 + length_of_text(&rest[1..], char)
        } else {
            if !char.is_whitespace() {
                words.push(Word::Sign(char));
            }
            char.len_utf8()
        };
        at += length;
    }
    words
}

/// The length of a text up to its quote, and with it.
fn length_of_text(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            chars.next();
        } else if char == quote {
            return at + 1;
        }
    }
    text.len()
}

/// As [`filters`], of what stands within `${{ }}`.
pub(super) fn filters_of(inner: &str) -> Vec<&str> {
    let words = words(inner);
    let pairs = words.windows(2).filter_map(|pair| match pair {
        [Word::Sign('|'), Word::Name(name)] => Some(*name),
        _ => None,
    });
    pairs.collect()
}

/// Whether the last filter stands at the very end, and so over all of the expression: a
/// filter binds more tightly than any operator but those within brackets.
fn ends_in_a_filter(inner: &str) -> bool {
    let words = words(inner.trim_end_matches(['-', '+']));
    let Some(at) = words.iter().rposition(|word| *word == Word::Sign('|')) else { return false };
    let operators = words[..at].iter().any(|word| match word {
        Word::Sign(sign) => matches!(sign, '~' | '+' | '*' | '/' | '<' | '>' | '=' | '!' | '%'),
        Word::Name(name) => matches!(*name, "if" | "else" | "and" | "or" | "not" | "in" | "is"),
        Word::Text => false,
    });
    let is_grouped =
        words.first() == Some(&Word::Sign('(')) && at > 0 && words[at - 1] == Word::Sign(')');
    at + 2 == words.len() && (!operators || is_grouped && groups_end(&words[..at]) == 1)
}

/// How often a bracket of the outermost level closes.
fn groups_end(words: &[Word<'_>]) -> usize {
    let (mut depth, mut ends) = (0_usize, 0);
    for word in words {
        match word {
            Word::Sign('(') => depth += 1,
            Word::Sign(')') => {
                depth = depth.saturating_sub(1);
                ends += usize::from(depth == 0);
            }
            Word::Name(_) | Word::Text | Word::Sign(_) => {}
        }
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_filters_and_nothing_else() {
        assert_eq!(filters("${{ a | b | c('| d') }} | e ${{ 'x }} | f' | g }}"), ["b", "c", "g"]);
        assert_eq!(filters("${% if a | b %}${{# | c #}}${% endif %} ${x|y} $$ ${"), ["b"]);
        assert_eq!(filters("no ${{ 'open | a"), Vec::<&str>::new());
        assert_eq!(filters("${{ \"\\\" | a\" | b }}"), ["b"]);
    }

    #[test]
    fn what_is_quoted_as_a_whole_is_safe() {
        let rest =
            |inner: &str| without_quoted(&format!("x ${{{{ {inner} }}}} y")).contains("params");
        for quoted in [
            "params.a | shell_quote",
            "params.a | upper | shell_quote",
            "(params.a ~ '/' ~ params.b) | shell_quote",
            "params['|'] | shell_quote",
        ] {
            assert!(!rest(quoted), "{quoted}");
        }
        assert!(!without_quoted("${{- params.a | shell_quote -}}").contains("params"));
        for open in [
            "params.a",
            "params.a ~ params.b | shell_quote",
            "(params.a) ~ (params.b) | shell_quote",
            "params.a | shell_quote ~ params.b",
            "params.a | shell_quote | upper",
            "params.a if params.b | shell_quote",
            "params.a or '' | shell_quote",
        ] {
            assert!(rest(open), "{open}");
        }
    }
}

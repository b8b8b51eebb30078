//! What secrets and personal data look like: formats that their issuers have published.

use super::pattern::{Closer, Pattern, Patterns};
use std::sync::{Arc, LazyLock};

/// A kind of secret: what it is called, and its pattern. `\b` is ASCII's here: letters of other alphabets end no key.
const SECRETS: &[(&str, &str, Option<Closer>)] = &[
    (
        "private-key",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:[A-Za-z0-9+/=\s\\:,-]*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?:(?:\s|\\n)*[A-Za-z0-9+/=]{16,})+)",
        None,
    ),
    ("anthropic-key", r"(?-u:\b)sk-ant-[A-Za-z0-9_-]{20,}", None),
    ("openrouter-key", r"(?-u:\b)sk-or-v1-[0-9a-f]{40,}", None),
    ("openai-key", r"(?-u:\b)sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,}", None),
    ("openai-key", r"(?-u:\b)sk-[A-Za-z0-9]{32,}", None),
    ("aws-access-key", r"(?-u:\b)(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?-u:\b)", None),
    ("aws-secret-key", r#"(?i-u:\baws_?(?:secret_?)?(?:access_?)?key)(?-u:[a-z_"'\s:=]{1,12})(?-u:[A-Za-z0-9/+]{40}\b)"#, Some(mixed)),
    ("github-token", r"(?-u:\b)gh[pousr]_[A-Za-z0-9]{36,251}", None),
    ("github-token", r"(?-u:\b)github_pat_[A-Za-z0-9_]{22,244}", None),
    ("gitlab-token", r"(?-u:\b)gl(?:pat|ptt|dt|rt|cbt|soat)-[A-Za-z0-9_-]{20,}", None),
    ("slack-token", r"(?-u:\b)xox[abeoprs]-[A-Za-z0-9-]{10,}", None),
    ("slack-token", r"(?-u:\b)xapp-\d-[A-Z0-9]{5,}-\d{5,}-[A-Za-z0-9]{20,}", None),
    ("slack-webhook", r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{30,}", None),
    ("google-api-key", r"(?-u:\b)AIza[A-Za-z0-9_-]{35}", None),
    ("google-oauth-token", r"(?-u:\b)ya29\.[A-Za-z0-9_-]{20,}", None),
    ("google-client-secret", r"(?-u:\b)GOCSPX-[A-Za-z0-9_-]{28}", None),
    ("stripe-key", r"(?-u:\b)[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}", None),
    ("huggingface-token", r"(?-u:\b)hf_[A-Za-z0-9]{30,}", None),
    ("groq-key", r"(?-u:\b)gsk_[A-Za-z0-9]{40,}", None),
    ("xai-key", r"(?-u:\b)xai-[A-Za-z0-9]{70,}", None),
    ("perplexity-key", r"(?-u:\b)pplx-[A-Za-z0-9]{40,}", None),
    ("replicate-token", r"(?-u:\b)r8_[A-Za-z0-9]{37}", None),
    ("sendgrid-key", r"(?-u:\b)SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", None),
    ("twilio-key", r"(?-u:\b)SK[0-9a-f]{32}(?-u:\b)", None),
    ("npm-token", r"(?-u:\b)npm_[A-Za-z0-9]{36}", None),
    ("pypi-token", r"(?-u:\b)pypi-AgEI[A-Za-z0-9_-]{50,}", None),
    ("digitalocean-token", r"(?-u:\b)do[opr]_v1_[a-f0-9]{64}", None),
    ("databricks-token", r"(?-u:\b)dapi[a-f0-9]{32}(?-u:\b)", None),
    ("shopify-token", r"(?-u:\b)shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}", None),
    ("linear-key", r"(?-u:\b)lin_api_[A-Za-z0-9]{40}", None),
    ("telegram-token", r"(?-u:\b)(?:bot)?[0-9]{8,10}:AA[A-Za-z0-9_-]{33}", None),
    ("azure-storage-key", r"(?-u:\b)AccountKey=[A-Za-z0-9+/]{80,}={0,2}", None),
    ("age-key", r"(?-u:\b)AGE-SECRET-KEY-1[A-Z0-9]{58}", None),
    ("jwt", r"(?-u:\b)eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]{10,})?", None),
    ("authorization-header", r"(?i-u:\bauthorization[ \t]*:[ \t]*(?:bearer|basic|token)[ \t]+[a-z0-9._~+/-]{8,}={0,2})", None),
    ("bearer-token", r"(?i-u:\bbearer[ \t]+[a-z0-9._~+/-]{20,}={0,2})", Some(mixed)),
    (
        "url-password",
        r#"(?i-u:\b(?:postgres(?:ql)?(?:\+[a-z0-9]{1,16})?|mysql(?:\+[a-z0-9]{1,16})?|mariadb|mongodb(?:\+srv)?|rediss?|amqps?|nats|https?|s?ftp|ssh|smtps?|imaps?|ldaps?|mssql|sqlserver|oracle|clickhouse|cassandra|couchdb|git)://)[^\s/:@"'<>]{0,64}:[^\s/@"'<>]{3,128}@[^\s/"'<>@]{1,255}"#,
        Some(no_example),
    ),
    (
        "assigned-secret",
        r#"(?i-u:\b(?:api|access|auth|secret|client)[_-]?(?:key|token|secret)|(?i-u:\bpass(?:word|wd)))(?-u:["']?[ \t]{0,3}[=:][ \t]{0,3}["']?[A-Za-z0-9_/+.~!@#$%^&*-]{16,128})"#,
        Some(assigned),
    ),
];

/// Kinds of personal data.
const PERSONAL: &[(&str, &str, Option<Closer>)] = &[
    ("email", r"(?-u:\b)[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?-u:\b)", None),
    ("iban", r"(?-u:\b)[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]){11,30}(?-u:\b)", Some(iban)),
    ("card", r"(?-u:\b)[2-6](?:[ -]?[0-9]){12,18}(?-u:\b)", Some(card)),
    ("ssn", r"(?-u:\b)[0-8][0-9]{2}-[0-9]{2}-[0-9]{4}(?-u:\b)", Some(ssn)),
    ("phone", r"\+[1-9](?:[ .()-]{0,2}[0-9]){7,14}(?-u:\b)", None),
    ("phone", r"(?:\([2-9][0-9]{2}\) ?|(?-u:\b)[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}(?-u:\b)", None),
];

fn made(table: &[(&str, &str, Option<Closer>)]) -> Arc<Patterns> {
    let pattern = |&(label, text, closer): &(&str, &str, Option<Closer>)| Pattern {
        label: label.into(),
        text: text.into(),
        replacement: format!("[{label}]").into(),
        closer,
    };
    Arc::new(Patterns::new(table.iter().map(pattern).collect()).expect("patterns of our own"))
}

/// What secrets look like: keys, tokens, passwords.
pub fn secrets() -> Arc<Patterns> {
    static MADE: LazyLock<Arc<Patterns>> = LazyLock::new(|| made(SECRETS));
    MADE.clone()
}

/// What personal data look like: mail addresses, accounts, cards, phones.
pub fn personal() -> Arc<Patterns> {
    static MADE: LazyLock<Arc<Patterns>> = LazyLock::new(|| made(PERSONAL));
    MADE.clone()
}

/// A text as chance makes them: it has letters and digits.
fn mixed(found: &str) -> Option<usize> {
    let tail = found.rsplit([' ', '\t', '=', ':', '"', '\'']).next().unwrap_or(found);
    let has = |is: fn(&u8) -> bool| tail.as_bytes().iter().any(is);
    (has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)).then_some(found.len())
}

/// A value that says itself that it is none.
fn is_example(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let first = value.chars().next();
    let same = value.chars().all(|letter| Some(letter) == first);
    same || value.contains(['$', '{', '<', '[', '%']) && value.contains(['}', '>', ']', '{'])
        || ["password", "passwd", "pass", "pwd", "secret", "xxx", "changeme", "example", "your"].iter().any(|word| value == *word)
        || value.starts_with("your")
        || value.contains("example")
}

fn no_example(found: &str) -> Option<usize> {
    let user = &found[found.find("://")? + 3..];
    let password = &user[user.find(':')? + 1..user.rfind('@')?];
    (!is_example(password)).then_some(found.len())
}

fn assigned(found: &str) -> Option<usize> {
    let value = found[found.find(['=', ':'])? + 1..].trim_start_matches([' ', '\t', '"', '\'', '=', ':']);
    let is_random = mixed(value).is_some() && entropy(value) >= 3.3;
    (is_random && !is_example(value)).then_some(found.len())
}

/// Shannon's, in bits for each byte.
fn entropy(text: &str) -> f64 {
    let mut counts = [0u32; 256];
    text.bytes().for_each(|byte| counts[byte as usize] += 1);
    let length = text.len() as f64;
    counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / length).map(|share| -share * share.log2()).sum()
}

/// Luhn's check digit, over a card's 13 to 19 digits.
fn card(found: &str) -> Option<usize> {
    let digits: Vec<u32> = found.chars().filter_map(|letter| letter.to_digit(10)).collect();
    let sum: u32 =
        digits.iter().rev().enumerate().map(|(at, digit)| if at % 2 == 1 { (digit * 2) / 10 + (digit * 2) % 10 } else { *digit }).sum();
    (sum.is_multiple_of(10) && (13..=19).contains(&digits.len())).then_some(found.len())
}

/// The check digits of ISO 13616 over the longest beginning that they are right for.
fn iban(found: &str) -> Option<usize> {
    let ends = found.char_indices().rev().map(|(at, letter)| at + letter.len_utf8());
    ends.filter(|end| found[..*end].ends_with(|letter: char| letter.is_ascii_alphanumeric())).find(|end| {
        let letters: Vec<u8> = found[..*end].bytes().filter(u8::is_ascii_alphanumeric).collect();
        if !(15..=34).contains(&letters.len()) {
            return false;
        }
        // What follows an account after a space is another word, not a part of it.
        let rest = &found[*end..];
        if !rest.is_empty() && !rest.starts_with([' ', '-']) {
            return false;
        }
        let turned = letters[4..].iter().chain(&letters[..4]);
        let rest = turned.fold(0u32, |rest, letter| match letter {
            b'0'..=b'9' => (rest * 10 + u32::from(letter - b'0')) % 97,
            _ => (rest * 100 + u32::from(letter - b'A') + 10) % 97,
        });
        rest == 1
    })
}

/// Numbers that were never given out are none.
fn ssn(found: &str) -> Option<usize> {
    let (area, group, serial) = (&found[..3], &found[4..6], &found[7..]);
    (!matches!(area, "000" | "666") && group != "00" && serial != "0000").then_some(found.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(patterns: Arc<Patterns>, text: &str) -> Option<String> {
        let mut from = 0;
        while let Some(span) = patterns.find(text, from) {
            if span.meant > 0 {
                return Some(patterns.each()[span.pattern].label.to_string());
            }
            from = span.end;
        }
        None
    }

    #[test]
    fn check_digits_tell_numbers_from_accounts() {
        for (text, found) in [
            ("4111 1111 1111 1111", Some("card")),
            ("4111 1111 1111 1112", None),
            ("378282246310005", Some("card")),
            ("GB82 WEST 1234 5698 7654 32", Some("iban")),
            ("DE89370400440532013000", Some("iban")),
            ("GB82 WEST 1234 5698 7654 32 IS MINE", Some("iban")),
            ("GB83 WEST 1234 5698 7654 32", None),
            ("078-05-1120", Some("ssn")),
            ("000-12-3456", None),
            ("jane.doe+x@mail.example.org", Some("email")),
            ("@decorator", None),
            ("+44 20 7946 0958", Some("phone")),
            ("(415) 555-2671", Some("phone")),
            ("1234567890", None),
            ("2024-01-15 10:20", None),
        ] {
            assert_eq!(label(personal(), text).as_deref(), found, "{text}");
        }
    }

    #[test]
    fn passwords_that_say_they_are_none_are_left() {
        for (text, found) in [
            ("postgres://app:h7Gt!kq@db.internal:5432/x", Some("url-password")),
            ("postgres://user:password@localhost/x", None),
            ("postgres://user:${DB_PASSWORD}@localhost/x", None),
            ("https://example.org:8080/path", None),
            ("api_key = \"9f8a7b6c5d4e3f2a1b0c\"", Some("assigned-secret")),
            ("api_key = \"your-api-key-here-please\"", None),
            ("password: correct-horse-battery-staple", None),
            ("use a Bearer token for authentication", None),
        ] {
            assert_eq!(label(secrets(), text).as_deref(), found, "{text}");
        }
    }

    #[test]
    fn what_chance_makes_has_letters_and_digits_and_is_not_always_the_same() {
        for (text, is_mixed) in
            [("a1", true), ("aa", false), ("11", false), ("key=11", false), ("a: 1", false), ("1 'a1'", false), ("1 'a1", true)]
        {
            assert_eq!(mixed(text), is_mixed.then_some(text.len()), "{text}");
        }
        for (text, bits) in [("", 0.0), ("aaaa", 0.0), ("abab", 1.0), ("abcd", 2.0), ("aaab", 0.811_278)] {
            assert!((entropy(text) - bits).abs() < 1e-6, "{text}");
        }
        for (text, is_secret) in
            [("key=abcdefghi1", true), ("key=abcdefghij", false), ("key: 'a1b2a1b2a1b2", false), ("key=abcdefghi1example", false)]
        {
            assert_eq!(assigned(text), is_secret.then_some(text.len()), "{text}");
        }
    }

    #[test]
    fn a_value_that_says_it_is_none_is_an_example() {
        for value in ["xxxx", "", "$PASS}", "${x}", "<here>", "[x]", "%{x}", "Password", "pwd", "changeme", "your-own", "an-Example-1"] {
            assert!(is_example(value), "{value}");
        }
        for value in ["xy", "$ecret1", "a}b", "passwordy", "my-pass", "thatsyours"] {
            assert!(!is_example(value), "{value}");
        }
        for (text, is_meant) in [("ftp://me:s3a@h", true), ("ftp://me:pwd@h", false), ("ftp://pwd:a:b@h", true), ("ftp://p:pwd@a@h", true)]
        {
            assert_eq!(no_example(text), is_meant.then_some(text.len()), "{text}");
        }
    }

    #[test]
    fn numbers_have_the_digits_that_their_issuers_give_them() {
        // Of 13 digits, of 19, of 12 and of 20; the second digit from the right is doubled, and nine of it is nine.
        for (digits, is_card) in [
            ("4222222222222", true),
            ("0000000000000000000", true),
            ("000000000000", false),
            ("00000000000000000000", false),
            ("0000000000000", true),
            ("0000000000018", true),
            ("0000000000091", true),
            ("0000000000019", false),
            ("0000000000001", false),
        ] {
            assert_eq!(card(digits), is_card.then_some(digits.len()), "{digits}");
        }
        for (text, meant) in [
            ("NO9386011117947", Some(15)),
            ("NO93 8601 1117 947", Some(18)),
            ("NO93-8601-1117-947", Some(18)),
            ("NO93 8601 1117 947-X", Some(18)),
            ("NO93 8601 1117 947X", None),
            ("NO93 8601 1117 948", None),
            ("MT84MALT011000012345MTLCAST001S", Some(31)),
            ("GB82", None),
        ] {
            assert_eq!(iban(text), meant, "{text}");
        }
        for (text, is_one) in
            [("123-45-6789", true), ("000-45-6789", false), ("666-45-6789", false), ("123-00-6789", false), ("123-45-0000", false)]
        {
            assert_eq!(ssn(text), is_one.then_some(11), "{text}");
        }
    }
}

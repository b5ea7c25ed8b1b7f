//! PEM (RFC 7468): DER between lines that say what it is. Read by hand, because errors name the line.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What stands between a BEGIN and an END line.
pub struct Section {
    /// `CERTIFICATE`, `PRIVATE KEY`, …
    pub label: String,
    /// The BEGIN line, from 1.
    pub line: usize,
    pub der: Vec<u8>,
}

/// The sections of a text, in order; what stands between them is a comment.
///
/// # Errors
/// The line and what is wrong with it.
pub fn parse(text: &[u8]) -> Result<Vec<Section>, (usize, String)> {
    let mut sections = Vec::new();
    let mut open: Option<(Section, Vec<u8>)> = None;
    for (line, content) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let content = content.trim_ascii();
        match &mut open {
            None => {
                if let Some(label) = boundary(content, "-----BEGIN ") {
                    open = Some((Section { label, line, der: Vec::new() }, Vec::new()));
                }
            }
            Some((section, encoded)) => {
                if let Some(label) = boundary(content, "-----END ") {
                    if label != section.label {
                        return Err((
                            line,
                            format!("END {label} closes BEGIN {} of line {}", section.label, section.line),
                        ));
                    }
                    section.der = STANDARD.decode(&encoded).map_err(|error| {
                        (section.line, format!("what follows BEGIN {label} is not base64 ({error})"))
                    })?;
                    sections.extend(open.take().map(|(section, _)| section));
                } else if content.starts_with(b"-----") {
                    return Err((line, format!("BEGIN {} of line {} has no END", section.label, section.line)));
                } else if content.contains(&b':') {
                    // A header field (RFC 1421): only encrypted keys have them.
                    return Err((line, format!("{} is encrypted (expected one without a passphrase)", section.label)));
                } else if !content.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)) {
                    return Err((line, "is not base64".to_owned()));
                } else {
                    encoded.extend_from_slice(content);
                }
            }
        }
    }
    match open {
        Some((section, _)) => Err((section.line, format!("BEGIN {} has no END", section.label))),
        None => Ok(sections),
    }
}

/// The label of a boundary line.
fn boundary(line: &[u8], begin: &str) -> Option<String> {
    let label = line.strip_prefix(begin.as_bytes())?.strip_suffix(b"-----")?;
    Some(String::from_utf8_lossy(label).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections() {
        let text = b"Bag Attributes\r\n-----BEGIN A-----\r\nAQID\r\nBA==\r\n-----END A-----\r\nsubject=x\n\
                     -----BEGIN B C-----\n-----END B C-----";
        let found = parse(text).expect("PEM");
        let shown: Vec<_> = found.iter().map(|own| (own.label.as_str(), own.line, own.der.as_slice())).collect();
        assert_eq!(shown, [("A", 2, &[1, 2, 3, 4][..]), ("B C", 7, &[])]);
        assert!(parse(b"no PEM at all").expect("nothing").is_empty());
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, message) in [
            ("\n-----BEGIN A-----\nAQID\n", 2, "BEGIN A has no END"),
            ("-----BEGIN A-----\nAQID\n-----BEGIN A-----\n", 3, "BEGIN A of line 1 has no END"),
            ("-----BEGIN A-----\nAQID\n-----END B-----\n", 3, "END B closes BEGIN A of line 1"),
            ("-----BEGIN A-----\nAQID\n$$$$\n-----END A-----\n", 3, "is not base64"),
            ("-----BEGIN A-----\nAQI\n-----END A-----\n", 1, "what follows BEGIN A is not base64 (Invalid padding)"),
            (
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n",
                2,
                "RSA PRIVATE KEY is encrypted (expected one without a passphrase)",
            ),
        ] {
            let found = parse(text.as_bytes()).map(|sections| sections.len());
            assert_eq!(found, Err((line, message.to_owned())), "{text}");
        }
    }
}

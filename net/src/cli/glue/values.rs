//! Values of flags: sizes, durations, times, names.

use crate::peer::Obfuscation;

/// Bytes: a number, with K, M, G or T for powers of 1,024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?}: expected a size above 0, such as 262144, 256K, 64M or 1G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KB" | "KIB" => 10,
        "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(expected)
}

/// [`size`], or 0 for nothing at all.
pub(crate) fn size_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { size(text) }
}

/// Seconds: a number, with s, m, h or d.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?}: expected a duration, such as 90, 15m, 12h or 30d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(expected()),
    };
    let number: u64 = digits.parse().map_err(|_| expected())?;
    number.checked_mul(unit).ok_or_else(expected)
}

/// Seconds as people read them: `90 seconds`, `12 hours`, `30 days`.
pub(crate) fn span(seconds: u64) -> String {
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let (unit, name) = units
        .into_iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
        .unwrap_or((1, "second"));
    match seconds / unit {
        1 => format!("one {name}"),
        count => format!("{count} {name}s"),
    }
}

/// Seconds since 1970: a number as it is, or with a unit, from now.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return text.parse().map_err(|_| format!("{text:?}: expected seconds since 1970"));
    }
    duration(text)
        .map_err(|_| format!("{text:?}: expected seconds since 1970, or from now with a unit, such as 30d"))?
        .checked_add(crate::date::now())
        .ok_or_else(|| format!("{text:?}: too far away"))
}

/// Whether connections are obfuscated.
pub(crate) fn obfuscation(name: &str) -> Result<Obfuscation, String> {
    Obfuscation::by_name(name).ok_or_else(|| "expected `off`, `allow` or `require`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        assert_eq!(size("1"), Ok(1));
        assert_eq!(size("256K"), Ok(256 << 10));
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!((size_or_none("0"), size_or_none("1K")), (Ok(0), Ok(1 << 10)));
        assert_eq!(duration("90"), Ok(90));
        assert_eq!(duration("30d"), Ok(30 * 86_400));
        for bad in ["", "0", "-1", "1X", "K", "1.5M", "99999999999T", "1 M"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["", "h", "1w", "-5m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(
            [0, 1, 90, 3600, 172_800].map(span),
            ["0 seconds", "one second", "90 seconds", "one hour", "2 days"]
        );
        assert_eq!(time("1700000000"), Ok(1_700_000_000));
        assert!(time("1h").unwrap() > 1_700_000_000);
        assert!(time("tomorrow").is_err());
    }
}

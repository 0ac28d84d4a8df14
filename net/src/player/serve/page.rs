//! The page that lists the files. Their names are the publisher's: every one is escaped.

use std::fmt::Write;

use axum::http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::wire::content::FileEntry;

/// The page shows media of its own and has a style of its own; nothing else, and no script at all.
pub(super) const POLICY: &str = "default-src 'none'; media-src 'self'; img-src 'self'; style-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How it looks.
pub(super) const STYLE: &str = "\
:root { color-scheme: light dark; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
ul { list-style: none; padding: 0; }
li { margin: 0 0 1.5rem; }
video { display: block; width: 100%; max-height: 75vh; background: #000; }
audio { display: block; width: 100%; }
small { opacity: 0.7; }
a { overflow-wrap: anywhere; }
";

/// What stays as it is in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A file below the page.
pub(super) fn link(index: usize, file: &FileEntry) -> String {
    let name = file.path.last().map_or("", String::as_str);
    format!("{index}/{}", utf8_percent_encode(name, PATH))
}

/// The list of `files`, under the torrent's name.
pub(super) fn index(name: &str, files: &[FileEntry]) -> String {
    let name = escape(name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}</title>\n<link rel=\"stylesheet\" href=\"style.css\">\n</head>\n<body>\n<h1>{name}</h1>\n<ul>\n"
    );
    // Where there are several, each is read once it is played.
    let preload = if files.len() == 1 { "metadata" } else { "none" };
    for (index, file) in files.iter().enumerate() {
        let (link, path, size) =
            (link(index, file), escape(&file.display_path()), indicatif::BinaryBytes(file.size));
        let _ = writeln!(page, "<li><a href=\"{link}\">{path}</a> <small>{size}</small>");
        for element in ["video", "audio"] {
            if file.mime.strip_prefix(element).is_some_and(|rest| rest.starts_with('/')) {
                let _ =
                    writeln!(page, "<{element} controls preload=\"{preload}\" src=\"{link}\"></{element}>");
            }
        }
        page.push_str("</li>\n");
    }
    page + "</ul>\n</body>\n</html>\n"
}

/// The publisher's MIME type, where it is one.
pub(super) fn content_type(mime: &str) -> HeaderValue {
    let token = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    let essence = mime.split(';').next().unwrap_or_default().trim_end();
    let known = essence.split_once('/').is_some_and(|(kind, sub)| token(kind) && token(sub));
    let value = HeaderValue::from_str(mime).ok().filter(|_| known && mime.is_ascii());
    value.unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[&str], mime: &str) -> FileEntry {
        FileEntry { mime: mime.into(), path: path.iter().map(|&name| name.into()).collect(), size: 3 << 20 }
    }

    #[test]
    fn media_can_be_played_and_names_say_nothing_but_themselves() {
        let files = [
            file(&["a b", "film & \"friends\".mp4"], "video/mp4"),
            file(&["<script>alert(1)</script>"], "text/html"),
            file(&["song'.ogg"], "audio/ogg"),
            file(&["videos"], "videos/none"),
        ];
        let page = index("<img src=x onerror=alert(1)>", &files);
        assert!(
            page.contains(
                "<video controls preload=\"none\" src=\"0/film%20%26%20%22friends%22.mp4\"></video>"
            )
        );
        assert!(page.contains("<audio controls preload=\"none\" src=\"2/song%27.ogg\">"));
        assert!(page.contains("a b/film &amp; &quot;friends&quot;.mp4</a> <small>3.00 MiB</small>"));
        assert_eq!(page.matches("<video").count() + page.matches("<audio").count(), 2);
        assert!(!page.contains("<script") && !page.contains("<img"));
        assert!(index("one", &files[..1]).contains("preload=\"metadata\""));
    }

    #[test]
    fn only_a_mime_type_is_a_mime_type() {
        for mime in ["video/mp4", "text/plain; charset=utf-8", "application/vnd.x+json"] {
            assert_eq!(content_type(mime), mime);
        }
        for mime in
            ["", "video", "/", "video/", "vi deo/mp4", "text/html\u{e9}", "ümlaut/x", "a/b/c", "text/html<>"]
        {
            assert_eq!(content_type(mime), "application/octet-stream", "{mime}");
        }
    }
}

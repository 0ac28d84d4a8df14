//! 32 secret bytes as words that can be written on paper: 24 words of BIP-39's English list, with its checksum of 8 bits in the last.

use std::fmt;

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

/// Words of a secret.
pub const COUNT: usize = 24;
/// Letters that tell all words apart.
const PREFIX: usize = 4;

/// Why words were refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A word is not in the list.
    #[error("word {position}, {word:?}, is none of the list; did you mean {nearest:?}?")]
    Unknown {
        /// Counted from 1.
        position: usize,
        /// As it was given, cut short where it is long.
        word: String,
        /// The word of the list that is most like it.
        nearest: &'static str,
    },
    /// There are more or fewer than [`COUNT`].
    #[error("expected {COUNT} words, found {found}")]
    Count {
        /// How many there are.
        found: usize,
    },
    /// All are in the list, and the checksum does not match.
    #[error("the checksum of the words does not match: one of them should be another, or two changed places")]
    Checksum,
}

/// Up to [`COUNT`] words, as numbers of the list. Zeroized on drop.
#[derive(Clone)]
pub struct Words(Zeroizing<Vec<u16>>);

impl Default for Words {
    fn default() -> Self {
        // Reserved whole, so that growing leaves no copies behind.
        Words(Zeroizing::new(Vec::with_capacity(COUNT)))
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Words({} of {COUNT})", self.count())
    }
}

impl Words {
    /// Those of a secret.
    pub fn of(secret: &[u8; 32]) -> Self {
        let mut words = Words::default();
        let mnemonic = Mnemonic::from_entropy_in(Language::English, secret).expect("256 bits are a mnemonic");
        words.0.extend(mnemonic.word_indices().map(|index| index as u16));
        words
    }

    /// Adds the words of a text, or none of them where one is wrong. Case and spaces do not matter, the first four letters of a word
    /// will do, and numbers are passed over. Errors: [`Error::Unknown`], [`Error::Count`].
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let is_word =
            |token: &&str| !token.trim_end_matches(['.', ')', ':']).bytes().all(|byte| byte.is_ascii_digit());
        let tokens = || text.split_whitespace().filter(is_word);
        let mut added = Words::default();
        for token in tokens() {
            let position = self.count() + added.count() + 1;
            let index = find(token).map_err(|nearest| Error::Unknown {
                position,
                word: token.chars().take(32).collect(),
                nearest,
            })?;
            if position > COUNT {
                return Err(Error::Count { found: self.count() + tokens().count() });
            }
            added.0.push(index);
        }
        self.0.extend_from_slice(&added.0);
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The words themselves.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|&index| Language::English.word_list()[usize::from(index)])
    }

    /// The secret that they spell. Errors: [`Error::Count`], [`Error::Checksum`].
    pub fn secret(&self) -> Result<Zeroizing<[u8; 32]>, Error> {
        if self.count() != COUNT {
            return Err(Error::Count { found: self.count() });
        }
        let mut text = Zeroizing::new(String::with_capacity(COUNT * 9));
        for word in self.iter() {
            text.push_str(word);
            text.push(' ');
        }
        let mnemonic =
            Mnemonic::parse_in_normalized(Language::English, &text).map_err(|_| Error::Checksum)?;
        let entropy = Zeroizing::new(mnemonic.to_entropy_array().0);
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(&entropy[..32]);
        Ok(secret)
    }
}

/// The number of a word, or the word that is most like it.
fn find(word: &str) -> Result<u16, &'static str> {
    let word = Zeroizing::new(word.to_ascii_lowercase());
    let list = Language::English.word_list();
    let begins = |&place: &usize| word.len() >= PREFIX && list[place].starts_with(word.as_str());
    let exact = list.binary_search(&word.as_str());
    // What begins so stands where the word would be inserted, and there is one such word at most.
    let place =
        exact.or_else(|place| Some(place).filter(|&place| place < list.len()).filter(begins).ok_or(()));
    let likeness = |other: &&&str| strsim::jaro_winkler(&word, other);
    let nearest = || *list.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).expect("2,048 words");
    place.map(|place| place as u16).map_err(|()| nearest())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<[u8; 32], Error> {
        let mut words = Words::default();
        words.add(text)?;
        words.secret().map(|secret| *secret)
    }

    fn text(secret: &[u8; 32]) -> String {
        Words::of(secret).iter().collect::<Vec<_>>().join(" ")
    }

    /// Vectors of BIP-39 itself, from github.com/trezor/python-mnemonic.
    #[test]
    fn words_are_those_of_bip_39() {
        let mut mixed = [0; 32];
        let hex = "68a79eaca2324873eacc50cb9c6eca8cc68ea5d936f98787c60c7ebc74e6ce7c";
        hex::decode_to_slice(hex, &mut mixed).unwrap();
        for (secret, words) in [
            ([0; 32], format!("{}art", "abandon ".repeat(23))),
            ([0xff; 32], format!("{}vote", "zoo ".repeat(23))),
            (
                [0x7f; 32],
                format!("{}title", "legal winner thank year wave sausage worth useful ".repeat(3).trim_end_matches("useful ")),
            ),
            (
                mixed,
                "hamster diagram private dutch cause delay private meat slide toddler razor book happy fancy gospel tennis \
                 maple dilemma loan word shrug inflict delay length"
                    .to_owned(),
            ),
        ] {
            assert_eq!(text(&secret), words);
            assert_eq!(read(&words), Ok(secret));
        }
    }

    #[test]
    fn case_spaces_numbers_and_endings_do_not_matter() {
        let secret = [9; 32];
        let words = text(&secret);
        assert_eq!(read(&words.to_uppercase().replace(' ', "\t \r\n")), Ok(secret));
        let short: String =
            words.split(' ').map(|word| format!("{} ", &word[..word.len().min(PREFIX)])).collect();
        assert_eq!(read(&short), Ok(secret));
        let numbered: String =
            words.split(' ').enumerate().map(|(at, word)| format!("{}. {word}\n", at + 1)).collect();
        assert_eq!(read(&numbered), Ok(secret));
        // Line by line, as they are typed.
        let mut typed = Words::default();
        for word in words.split(' ') {
            assert_eq!(typed.secret(), Err(Error::Count { found: typed.count() }));
            typed.add("wrnog").unwrap_err();
            typed.add(word).unwrap();
        }
        assert_eq!(*typed.secret().unwrap(), secret);
        assert!(!format!("{typed:?}").contains(words.split(' ').next().unwrap()));
    }

    #[test]
    fn wrong_words_are_named_with_the_nearest() {
        let words = text(&[0; 32]);
        let unknown =
            |position, word: &str, nearest| Err(Error::Unknown { position, word: word.to_owned(), nearest });
        assert_eq!(read(&words.replace("art", "arrt")), unknown(24, "arrt", "art"));
        assert_eq!(read("abandon abandom"), unknown(2, "abandom", "abandon"));
        // Three letters begin several words, and a longer one has to be right to its end.
        assert_eq!(read("aba"), unknown(1, "aba", "abandon"));
        assert_eq!(read("abandonn"), unknown(1, "abandonn", "abandon"));
        let long = read(&"é".repeat(40)).unwrap_err();
        assert!(matches!(long, Error::Unknown { position: 1, word, .. } if word == "é".repeat(32)));
        assert_eq!(read(&words.replace("art", "able")), Err(Error::Checksum));
        assert_eq!(read(""), Err(Error::Count { found: 0 }));
        assert_eq!(read(words.trim_end_matches(" art")), Err(Error::Count { found: 23 }));
        assert_eq!(read(&format!("{words} able able")), Err(Error::Count { found: 26 }));
    }

    #[test]
    fn four_letters_name_each_word() {
        for (index, word) in Language::English.word_list().iter().enumerate() {
            assert_eq!(find(word), Ok(index as u16));
            assert_eq!(find(&word[..word.len().min(PREFIX)]), Ok(index as u16), "{word}");
        }
    }

    proptest! {
        #[test]
        fn secrets_come_back(secret: [u8; 32]) {
            prop_assert_eq!(read(&text(&secret)), Ok(secret));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = read(&text);
        }
    }
}

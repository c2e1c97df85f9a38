//! Words that are nearly the typed one: by deletions on both sides (the idea of `SymSpell`). A word and a misspelling of it
//! become equal when at most as many letters as there are mistakes are left out of the first six of each.

use super::Texts;

/// Letters of a word that are indexed.
const PREFIX: usize = 6;
/// Shorter words have no typos, only other words.
const SHORTEST: usize = 4;
/// From this length on two mistakes are forgiven.
const TWO_FROM: usize = 8;

/// Digests of shortened words with their words, sorted.
#[derive(Debug, Default)]
pub(super) struct Typos {
    /// Digest in the upper half, word in the lower.
    entries: Vec<u64>,
}

/// How many mistakes are forgiven in a word of this length.
pub(super) fn forgiven(length: usize) -> usize {
    match length {
        0..SHORTEST => 0,
        SHORTEST..TWO_FROM => 1,
        _ => 2,
    }
}

impl Typos {
    pub(super) fn new(terms: &Texts) -> Self {
        let mut entries = Vec::new();
        for number in 0..u32::try_from(terms.len()).unwrap_or(u32::MAX) {
            let word = terms.get(number).as_bytes();
            if word.len() >= SHORTEST && word.iter().all(u8::is_ascii_lowercase) {
                each_shortened(word, forgiven(word.len()), &mut |digest| {
                    entries.push(u64::from(digest) << 32 | u64::from(number));
                });
            }
        }
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        Self { entries }
    }

    pub(super) fn size(&self) -> usize {
        self.entries.capacity() * 8
    }

    /// Words within the forgiven distance of `word`, or that begin within one mistake like it; each with the distance,
    /// and whether the whole word is meant.
    pub(super) fn near(&self, terms: &Texts, word: &str) -> Vec<Near> {
        let most = forgiven(word.len());
        let word = word.as_bytes();
        if most == 0 || !word.iter().all(u8::is_ascii_lowercase) {
            return Vec::new();
        }
        let mut candidates: Vec<u32> = Vec::new();
        each_shortened(word, most, &mut |digest| {
            let low = u64::from(digest) << 32;
            let from = self.entries.partition_point(|entry| *entry < low);
            let same = self.entries[from..].iter().take_while(|entry| *entry >> 32 == u64::from(digest));
            candidates.extend(same.filter_map(|entry| u32::try_from(*entry & 0xffff_ffff).ok()));
        });
        candidates.sort_unstable();
        candidates.dedup();
        let mut found = Vec::new();
        for term in candidates {
            let known = terms.get(term).as_bytes();
            let (whole, beginning) = distances(word, known, most);
            // A short word and a long one may differ by what the longer one is forgiven, never by more.
            let whole_most = most.min(forgiven(known.len()));
            if whole == 0 || beginning == 0 {
                continue;
            }
            if whole <= whole_most {
                found.push(Near { term, distance: u8::try_from(whole).unwrap_or(u8::MAX), whole: true });
            } else if beginning == 1 && word.len() > SHORTEST {
                found.push(Near { term, distance: 1, whole: false });
            }
        }
        found
    }
}

/// A word that is nearly another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Near {
    pub term: u32,
    pub distance: u8,
    /// Else only its beginning.
    pub whole: bool,
}

/// The first letters of a word with up to `most` of them left out.
fn each_shortened(word: &[u8], most: usize, take: &mut dyn FnMut(u32)) {
    let length = word.len().min(PREFIX);
    let mut letters = [0; PREFIX];
    letters[..length].copy_from_slice(&word[..length]);
    take(digest(&letters[..length]));
    for first in 0..length {
        let mut one = [0; PREFIX];
        let shorter = without(&letters[..length], first, &mut one);
        take(digest(&one[..shorter]));
        if most > 1 {
            for second in first..shorter {
                let mut two = [0; PREFIX];
                let shortest = without(&one[..shorter], second, &mut two);
                take(digest(&two[..shortest]));
            }
        }
    }
}

fn without(letters: &[u8], left_out: usize, into: &mut [u8; PREFIX]) -> usize {
    let mut length = 0;
    for (at, letter) in letters.iter().enumerate() {
        if at != left_out {
            into[length] = *letter;
            length += 1;
        }
    }
    length
}

/// FNV-1a, folded: a wrong equality only costs a comparison.
fn digest(letters: &[u8]) -> u32 {
    let full = letters.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, letter| {
        (hash ^ u64::from(*letter)).wrapping_mul(0x0100_0000_01b3)
    });
    let folded = full ^ full >> 32;
    u32::try_from(folded & 0xffff_ffff).unwrap_or(0)
}

/// The distances of a typed word to a known word and to the nearest beginning of it: insertions, deletions,
/// substitutions and swaps of neighbours. More than `most` is not told exactly.
fn distances(typed: &[u8], known: &[u8], most: usize) -> (usize, usize) {
    const LONGEST: usize = 40;
    let far = most + 1;
    if typed.len() >= LONGEST || typed.len() > known.len() + most {
        return (far, far);
    }
    // What lies far behind the typed word is not its beginning.
    let width = known.len().min(typed.len() + most);
    let mut rows = [[0_usize; LONGEST + 4]; 3];
    if width >= LONGEST + 3 {
        return (far, far);
    }
    for (at, cell) in rows[1].iter_mut().enumerate().take(width + 1) {
        *cell = at;
    }
    for (row, letter) in typed.iter().enumerate() {
        rows[2][0] = row + 1;
        let mut best = rows[2][0];
        for column in 0..width {
            let same = usize::from(*letter != known[column]);
            let mut cell = (rows[1][column] + same).min(rows[1][column + 1] + 1).min(rows[2][column] + 1);
            let swapped =
                row > 0 && column > 0 && *letter == known[column - 1] && typed[row - 1] == known[column];
            if swapped {
                cell = cell.min(rows[0][column - 1] + 1);
            }
            rows[2][column + 1] = cell;
            best = best.min(cell);
        }
        if best > most {
            return (far, far);
        }
        rows.rotate_left(1);
    }
    let last = &rows[1][..=width];
    let whole = if known.len() <= width { last[width] } else { far };
    let beginning = last.iter().copied().min().unwrap_or(far);
    (whole, beginning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(words: &[&str]) -> Texts {
        let mut words = words.to_vec();
        words.sort_unstable();
        let mut texts = Texts::default();
        for word in words {
            texts.bytes.push_str(word);
            texts.ends.push(u32::try_from(texts.bytes.len()).expect("small"));
        }
        texts
    }

    fn near(typed: &str, known: &str) -> Option<(u8, bool)> {
        let terms = terms(&[known]);
        Typos::new(&terms).near(&terms, typed).first().map(|near| (near.distance, near.whole))
    }

    #[test]
    fn one_mistake_of_each_kind_is_forgiven() {
        for typed in ["mecry", "merccy", "mery", "marcy", "ercy", "mercyy"] {
            assert_eq!(near(typed, "mercy"), Some((1, true)), "{typed}");
        }
        assert_eq!(near("mercy", "mercy"), None, "no mistake at all");
        assert_eq!(near("mxxcy", "mercy"), None, "two in a short word");
    }

    #[test]
    fn long_words_may_have_two_and_unfinished_ones_one() {
        assert_eq!(near("sprngfeld", "springfield"), Some((2, true)));
        assert_eq!(near("methdoist", "methodist"), Some((1, true)));
        assert_eq!(near("sprngfi", "springfield"), Some((1, false)));
        assert_eq!(near("xxringfield", "springfield"), Some((2, true)));
        assert_eq!(near("orthopedcs", "orthopedics"), Some((1, true)));
    }

    #[test]
    fn short_words_and_numbers_have_no_typos() {
        assert_eq!(near("dre", "der"), None);
        assert_eq!(near("72902", "72901"), None);
    }
}

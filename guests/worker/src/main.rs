//! A service of usual size: reads its settings and arguments, says what it found in one line, and waits.
//!
//! It is here for what is in it: maps, sorting, text and numbers of all kinds, as in a program that does something.

use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Nothing,
    Flag(bool),
    Whole(i128),
    Real(f64),
    Text(String),
    List(Vec<Value>),
    Table(BTreeMap<String, Value>),
    Host(IpAddr),
    Socket(SocketAddr),
}

#[derive(Debug)]
enum Bad {
    Ends,
    Sign(char),
    Number(String),
    Deep,
}

/// Values may lie in each other this deep.
const DEPTH_MAX: usize = 32;

struct Reader<'a> {
    left: std::iter::Peekable<std::str::Chars<'a>>,
    depth: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Result<Value, Bad> {
        self.blank();
        if self.depth == DEPTH_MAX {
            return Err(Bad::Deep);
        }
        self.depth += 1;
        let value = match self.left.peek().copied().ok_or(Bad::Ends)? {
            '[' => self.list(),
            '{' => self.table(),
            '"' => self.text().map(Value::Text),
            _ => self.word(),
        };
        self.depth -= 1;
        value
    }

    fn blank(&mut self) {
        while self.left.next_if(|c| c.is_whitespace()).is_some() {}
    }

    fn expect(&mut self, wanted: char) -> Result<(), Bad> {
        self.blank();
        match self.left.next() {
            Some(found) if found == wanted => Ok(()),
            Some(found) => Err(Bad::Sign(found)),
            None => Err(Bad::Ends),
        }
    }

    fn list(&mut self) -> Result<Value, Bad> {
        self.expect('[')?;
        let mut items = Vec::new();
        loop {
            self.blank();
            if self.left.next_if_eq(&']').is_some() {
                return Ok(Value::List(items));
            }
            items.push(self.value()?);
            self.blank();
            self.left.next_if_eq(&',');
        }
    }

    fn table(&mut self) -> Result<Value, Bad> {
        self.expect('{')?;
        let mut table = BTreeMap::new();
        loop {
            self.blank();
            if self.left.next_if_eq(&'}').is_some() {
                return Ok(Value::Table(table));
            }
            let key = self.text()?;
            self.expect(':')?;
            table.insert(key, self.value()?);
            self.blank();
            self.left.next_if_eq(&',');
        }
    }

    fn text(&mut self) -> Result<String, Bad> {
        self.expect('"')?;
        let mut text = String::new();
        loop {
            match self.left.next().ok_or(Bad::Ends)? {
                '"' => return Ok(text),
                '\\' => match self.left.next().ok_or(Bad::Ends)? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'u' => text.push(self.code()?),
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
    }

    fn code(&mut self) -> Result<char, Bad> {
        let digits: String = self.left.by_ref().take(4).collect();
        let code = u32::from_str_radix(&digits, 16).map_err(|_| Bad::Number(digits))?;
        Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn word(&mut self) -> Result<Value, Bad> {
        let mut word = String::new();
        while let Some(c) = self.left.next_if(|c| !",]} \n\t".contains(*c)) {
            word.push(c);
        }
        Ok(match word.to_lowercase().as_str() {
            "null" => Value::Nothing,
            "true" => Value::Flag(true),
            "false" => Value::Flag(false),
            lower => lower
                .parse()
                .map(Value::Whole)
                .or_else(|_| lower.parse().map(Value::Real))
                .or_else(|_| lower.parse().map(Value::Host))
                .or_else(|_| lower.parse().map(Value::Socket))
                .map_err(|_| Bad::Number(word.to_uppercase()))?,
        })
    }
}

impl FromStr for Value {
    type Err = Bad;

    fn from_str(text: &str) -> Result<Self, Bad> {
        let left = text.chars().peekable();
        Reader { left, depth: 0 }.value()
    }
}

impl Value {
    fn show(&self, to: &mut String) -> std::fmt::Result {
        match self {
            Value::Nothing => write!(to, "null"),
            Value::Flag(flag) => write!(to, "{flag}"),
            Value::Whole(number) => write!(to, "{number:#x}"),
            Value::Real(number) => write!(to, "{number:.3e}"),
            Value::Text(text) => write!(to, "{text:?}"),
            Value::Host(host) => write!(to, "{host}"),
            Value::Socket(socket) => write!(to, "{socket:>24}"),
            Value::List(items) => items.iter().try_for_each(|item| item.show(to)),
            Value::Table(table) => table.iter().try_for_each(|(key, value)| {
                write!(to, "{key}=")?;
                value.show(to)
            }),
        }
    }
}

/// How often each word occurs, the most frequent first.
fn frequent(text: &str) -> Vec<(usize, String)> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let heap: BinaryHeap<_> = counts
        .into_iter()
        .map(|(word, count)| (count, word))
        .collect();
    heap.into_sorted_vec()
}

/// Days since 1970 as year, month and day.
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Mean and deviation of the last few numbers.
fn recent(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut window = VecDeque::new();
    for number in numbers {
        if window.len() == 8 {
            window.pop_front();
        }
        window.push_back(number);
    }
    let count = window.len().max(1) as f64;
    let mean = window.iter().sum::<f64>() / count;
    let spread = window
        .iter()
        .map(|number| (number - mean).powi(2))
        .sum::<f64>()
        / count;
    (mean, spread.sqrt().ln_1p().exp_m1())
}

fn main() {
    let mut text = String::new();
    for (name, value) in std::env::vars() {
        let _ = writeln!(text, "{name}={value}");
    }
    let mut shown = String::new();
    let mut bad = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.parse::<Value>() {
            Ok(value) => value.show(&mut shown).unwrap_or_default(),
            Err(error) => bad.push(format!("{error:?}")),
        }
    }
    bad.sort();
    bad.dedup();
    let numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    let (mean, spread) = recent(numbers);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (year, month, day) = date((now.as_secs() / 86_400) as i64);
    println!(
        "working since {year}-{month:02}-{day:02}: {} words, mean {mean:?} +- {spread:.2}, {shown}{}",
        frequent(&text).len(),
        bad.join(", ")
    );
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

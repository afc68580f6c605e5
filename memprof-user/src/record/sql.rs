//! The text of a query without the values in it.

/// A query without its values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    /// The text, with `?` for every placeholder and every literal.
    pub text: String,
    /// How many of these were placeholders: `?`, `:name`, `$1`.
    pub placeholders: u64,
}

/// A query's text with `?` for every literal, without comments, on one line.
///
/// What stands in double quotes is an identifier in standard SQL and a string in MySQL. It is kept where
/// it looks like a name and stands where a name does. Where the text cannot be read with certainty (a
/// backslash in a string, a quote without an end) the rest is left out.
#[must_use]
pub fn anonymous(sql: &str) -> Anonymous {
    let mut text = Text {
        rest: sql,
        out: String::with_capacity(sql.len()),
        is_mysql: sql.contains('`'),
        placeholders: 0,
        last_word: String::new(),
        lists: Vec::new(),
    };
    while text.step() {}
    Anonymous {
        text: text.out.trim().to_owned(),
        placeholders: text.placeholders,
    }
}

/// Words behind which a parenthesis holds values.
const VALUE_LISTS: [&str; 3] = ["in", "values", "limit"];
/// Longest identifier that is kept, in bytes.
const LONGEST_NAME: usize = 64;

struct Text<'a> {
    rest: &'a str,
    out: String,
    is_mysql: bool,
    placeholders: u64,
    /// The last word, in lower case.
    last_word: String,
    /// For each open parenthesis, whether it holds values.
    lists: Vec<bool>,
}

impl Text<'_> {
    /// Takes one token; whether there may be another.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else {
            return false;
        };
        match first {
            '\'' => self.literal('\''),
            '"' => self.double_quoted(),
            '`' => self.copy_quoted('`'),
            '$' if self.is_dollar_quote() => self.give_up(),
            _ if self.rest.starts_with("/*") => self.skip_past("*/"),
            _ if self.rest.starts_with("--") || first == '#' => self.skip_past("\n"),
            '0'..='9' => self.number(),
            _ if first.is_alphabetic() || first == '_' => self.word(),
            _ if first.is_whitespace() => self.space(),
            _ => self.sign(first),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest.get(bytes..).unwrap_or_default();
    }

    /// What follows cannot be read with certainty, or was cut.
    fn give_up(&mut self) -> bool {
        self.out.push('…');
        self.rest = "";
        false
    }

    fn literal(&mut self, quote: char) -> bool {
        self.out.push('?');
        match self.quoted(quote) {
            Some(inside) if !inside.contains('\\') => true,
            _ => self.give_up(),
        }
    }

    /// Takes a quoted token; what is between its quotes, or `None` without an end.
    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut inside = String::new();
        let mut letters = self.rest.char_indices().skip(1).peekable();
        while let Some((at, letter)) = letters.next() {
            if letter != quote {
                inside.push(letter);
            } else if letters.next_if(|(_, next)| *next == quote).is_some() {
                inside.push(quote);
            } else {
                self.advance(at + 1);
                return Some(inside);
            }
        }
        None
    }

    fn double_quoted(&mut self) -> bool {
        let is_value_place = self.out.trim_end().ends_with(['=', '<', '>', '+', '|'])
            || self.lists.last() == Some(&true)
            || ["like", "between"].contains(&self.last_word.as_str());
        let Some(inside) = self.quoted('"') else {
            self.out.push('?');
            return self.give_up();
        };
        if inside.contains('\\') {
            self.out.push('?');
            return self.give_up();
        }
        let is_name = inside.len() <= LONGEST_NAME
            && !inside.starts_with(|letter: char| letter.is_ascii_digit())
            && inside
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        if is_name && !is_value_place && !self.is_mysql {
            self.out.push('"');
            self.out.push_str(&inside);
            self.out.push('"');
        } else {
            self.out.push('?');
        }
        self.last_word.clear();
        true
    }

    fn copy_quoted(&mut self, quote: char) -> bool {
        let Some(inside) = self.quoted(quote) else {
            return self.give_up();
        };
        self.out.push(quote);
        self.out.push_str(&inside);
        self.out.push(quote);
        true
    }

    /// PostgreSQL's `$$text$$` and `$tag$text$tag$`; `$1` is a placeholder.
    fn is_dollar_quote(&self) -> bool {
        let tag = self.rest.get(1..).unwrap_or_default();
        let end = tag.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        end.is_some_and(|end| {
            tag.get(end..).is_some_and(|after| after.starts_with('$'))
                && !tag.starts_with(|letter: char| letter.is_ascii_digit())
        })
    }

    fn skip_past(&mut self, end: &str) -> bool {
        match self.rest.find(end) {
            Some(at) => {
                self.advance(at + end.len());
                self.space_out();
                true
            }
            None => {
                self.rest = "";
                false
            }
        }
    }

    fn number(&mut self) -> bool {
        let is_in = |letter: char| letter.is_alphanumeric() || letter == '.' || letter == '_';
        let end = self.rest.find(|letter| !is_in(letter));
        self.advance(end.unwrap_or(self.rest.len()));
        let is_placeholder = self.out.ends_with(['$', ':']);
        if is_placeholder {
            self.placeholders += 1;
            self.out.pop();
        }
        self.out.push('?');
        true
    }

    fn word(&mut self) -> bool {
        let is_in = |letter: char| letter.is_alphanumeric() || letter == '_';
        let end = self.rest.find(|letter| !is_in(letter));
        let end = end.unwrap_or(self.rest.len());
        let word = self.rest.get(..end).unwrap_or_default().to_owned();
        self.advance(end);
        // x'00ff', b'01', n'text', _utf8'text': a literal with a prefix.
        if self.rest.starts_with('\'') {
            return true;
        }
        self.last_word = word.to_lowercase();
        self.out.push_str(&word);
        true
    }

    fn space(&mut self) -> bool {
        let start = self.rest.trim_start();
        self.rest = start;
        self.space_out();
        true
    }

    fn space_out(&mut self) {
        if !self.out.ends_with(' ') {
            self.out.push(' ');
        }
    }

    fn sign(&mut self, sign: char) -> bool {
        self.advance(sign.len_utf8());
        match sign {
            '(' => {
                let within = self.lists.last() == Some(&true);
                self.lists
                    .push(within || VALUE_LISTS.contains(&self.last_word.as_str()));
                self.last_word.clear();
            }
            ')' => {
                self.last_word.clear();
                if self.lists.pop() == Some(true) {
                    // `values (…), (…)`: so does the next list.
                    self.last_word.push_str("values");
                }
            }
            _ => {}
        }
        self.placeholders += u64::from(sign == '?');
        // `:name` is a placeholder; `::text` a cast.
        if sign == ':' && self.rest.starts_with(char::is_alphabetic) && !self.out.ends_with(':') {
            let end = self.rest.find(|l: char| !l.is_alphanumeric() && l != '_');
            self.advance(end.unwrap_or(self.rest.len()));
            self.placeholders += 1;
            self.out.push('?');
            return true;
        }
        self.out.push(sign);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_value_is_kept() {
        for sql in [
            "select * from `shifts` where `depot_id` = ?",
            r#"select "id", "name" from "calls" where "company_id" = ? and "calls"."deleted_at" is null limit ?"#,
            r#"insert into "calls" ("name", "status") values (?, ?)"#,
            r#"select count(*) as aggregate from "users_2fa""#,
            "select a.b, t1.c2 from x_1 a where c is not null",
        ] {
            assert_eq!(anonymous(sql).text, sql);
        }
    }

    #[test]
    fn values_are_not() {
        for (sql, expected) in [
            (
                "select * from t where a = 'S3CRET'",
                "select * from t where a = ?",
            ),
            (
                "select 'it''s', 42, 1.5e3, 0xff, x'ff' , -7",
                "select ?, ?, ?, ?, ? , -?",
            ),
            (
                "select * from t where a = \"S3CRET\"",
                "select * from t where a = ?",
            ),
            (
                "select * from `t` where a in (\"S3CRET\", \"b\")",
                "select * from `t` where a in (?, ?)",
            ),
            (
                "select * from t where a in (\"S3CRET\")",
                "select * from t where a in (?)",
            ),
            (
                "insert into t (a) values (\"S3CRET\", \"b\")",
                "insert into t (a) values (?, ?)",
            ),
            (
                "insert into t (a) values (1), (\"S3CRET\")",
                "insert into t (a) values (?), (?)",
            ),
            (
                "select * from t where a like \"S3CRET\"",
                "select * from t where a like ?",
            ),
            ("select \"an S3CRET text\"", "select ?"),
            (
                "select 1 /* S3CRET */ + 2 -- S3CRET\n, 3 # S3CRET",
                "select ? + ? , ?",
            ),
            ("select a\n  from\tt", "select a from t"),
            ("select :name, $1, a::text", "select ?, ?, a::text"),
        ] {
            assert_eq!(anonymous(sql).text, expected);
        }
    }

    #[test]
    fn what_cannot_be_read_with_certainty_is_left_out() {
        for sql in [
            r"select 'a\', b' S3CRET",
            "select 'S3CRET without an end",
            "select $$S3CRET$$",
            "select $tag$S3CRET$tag$",
            r#"select "a\" S3CRET"#,
        ] {
            let text = anonymous(sql).text;
            assert!(!text.contains("S3CRET") && text.ends_with('…'), "{text}");
        }
    }

    #[test]
    fn placeholders_are_counted() {
        let bound = |sql| anonymous(sql).placeholders;
        assert_eq!(bound("a = ? and b in (?, 'x', 7)"), 2);
        assert_eq!(bound("a = :name and b = $2 and c = d::text and e = '?'"), 2);
    }
}

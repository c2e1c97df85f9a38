//! Reading what callers send, with an error that names the field.

use serde_json::{Map, Value as Json};

use crate::http::{Problem, ProblemKind};
use crate::workspaces::is_return_address;

/// The name of an unknown field is repeated to its sender up to this many characters.
const LONGEST_NAME_SHOWN: usize = 100;

/// The members of a JSON object in a request's body.
#[derive(Debug)]
pub struct Fields(Map<String, Json>);

impl Fields {
    /// Reads the body. With `only`, other members are refused.
    pub fn parse(body: &[u8], only: Option<&[&str]>) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::new(ProblemKind::BadRequest, "A JSON body is required."));
        }
        let parsed: Json = serde_json::from_slice(body)
            .map_err(|_| Problem::new(ProblemKind::BadRequest, "The body is not valid JSON."))?;
        let Json::Object(members) = parsed else {
            return Err(Problem::new(ProblemKind::BadRequest, "The body must be a JSON object."));
        };
        if let Some(unknown) =
            only.and_then(|only| members.keys().find(|name| !only.contains(&name.as_str())))
        {
            let shown: String = unknown.chars().take(LONGEST_NAME_SHOWN).collect();
            return Err(Problem::invalid(&shown, "The body has a field that is not known here."));
        }
        Ok(Self(members))
    }

    /// Whether a field is there, be it null.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A text of 1 to `most` characters that must be there.
    pub fn required_text(&self, name: &str, most: usize) -> Result<String, Problem> {
        self.text(name, most, Null::Refused)?.ok_or_else(|| Problem::missing(name))
    }

    /// A text of 1 to `most` characters, when it is there.
    pub fn text(&self, name: &str, most: usize, null: Null) -> Result<Option<String>, Problem> {
        let text = self.text_or_empty(name, most, null)?;
        if text.as_ref().is_some_and(String::is_empty) {
            return Err(Problem::invalid(name, format!("`{name}` must have 1 to {most} characters.")));
        }
        Ok(text)
    }

    /// A text of at most `most` characters, when it is there: names have no shortest length in the contract.
    pub fn text_or_empty(&self, name: &str, most: usize, null: Null) -> Result<Option<String>, Problem> {
        let text = match (self.0.get(name), null) {
            (None, _) | (Some(Json::Null), Null::MeansNone) => return Ok(None),
            (Some(Json::String(text)), _) => text,
            (Some(_), _) => return Err(Problem::invalid(name, format!("`{name}` must be a string."))),
        };
        if text.chars().count() > most {
            return Err(Problem::invalid(name, format!("`{name}` must have at most {most} characters.")));
        }
        Ok(Some(text.clone()))
    }

    /// An e-mail address, when it is there.
    pub fn email(&self, name: &str, null: Null) -> Result<Option<String>, Problem> {
        let Some(text) = self.text(name, 254, null)? else { return Ok(None) };
        let plausible = text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty()
                && !domain.is_empty()
                && !domain.contains('@')
                && !domain.starts_with('.')
                && !text.chars().any(|letter| letter.is_whitespace() || letter.is_control())
        });
        if plausible {
            Ok(Some(text))
        } else {
            Err(Problem::invalid(name, format!("`{name}` must be an e-mail address.")))
        }
    }

    /// An object, when it is there.
    pub fn object(&self, name: &str) -> Result<Option<Map<String, Json>>, Problem> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Json::Object(members)) => Ok(Some(members.clone())),
            Some(_) => Err(Problem::invalid(name, format!("`{name}` must be an object."))),
        }
    }

    /// A whole number within bounds, when it is there.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(value) = self.0.get(name) else { return Ok(None) };
        match whole(value).filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Problem::invalid(
                name,
                format!("`{name}` must be a whole number from {least} to {most}."),
            )),
        }
    }

    /// A list of texts, when it is there.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Problem> {
        let wrong =
            || Problem::invalid(name, format!("`{name}` must be a list of at most 100 non-empty strings."));
        let items = match self.0.get(name) {
            None => return Ok(None),
            Some(Json::Array(items)) if items.len() <= 100 => items,
            Some(_) => return Err(wrong()),
        };
        let texts = items.iter().map(|item| {
            let good = item.as_str().filter(|text| !text.is_empty() && text.len() <= 2048);
            good.map(str::to_owned).ok_or_else(wrong)
        });
        texts.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// An address a browser will be sent to. App links with a scheme of their own are fine; what a browser would run is not.
    pub fn required_return_url(&self, name: &str) -> Result<String, Problem> {
        let text = self.required_text(name, 2048)?;
        if is_return_address(&text) {
            Ok(text)
        } else {
            Err(Problem::invalid(name, format!("`{name}` must be an absolute URL.")))
        }
    }
}

/// JSON has one kind of number: `60.0` is as whole as `60`.
fn whole(value: &Json) -> Option<u64> {
    let exact = |float: f64| float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be whole and small enough"
    )]
    value.as_u64().or_else(|| value.as_f64().filter(|float| exact(*float)).map(|float| float as u64))
}

/// What an explicit `null` means for a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Null {
    /// It is an error.
    Refused,
    /// The same as leaving the field out.
    MeansNone,
}

/// The parameters of a request's query.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query, without its `?`.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect())
    }

    /// The last value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A page size: 1 to 100.
    pub fn page_size(&self, name: &str, default: usize) -> Result<usize, Problem> {
        let Some(text) = self.get(name) else { return Ok(default) };
        match text.parse::<usize>() {
            Ok(size) if (1..=100).contains(&size) => Ok(size),
            _ => Err(Problem::invalid(name, format!("`{name}` must be a whole number from 1 to 100."))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named() {
        let fields = Fields::parse(
            br#"{"n":0,"t":"","o":[],"e":"a@@b","u":"javascript:alert(1)","l":[1],"z":null}"#,
            None,
        )
        .expect("an object");
        let check = |result: Result<(), Problem>, param: &str| {
            let answer = result.expect_err("refused");
            assert_eq!(answer.kind, ProblemKind::InvalidData, "{param}");
        };
        check(fields.number("n", 1, 9).map(drop), "n");
        check(fields.text("t", 9, Null::Refused).map(drop), "t");
        check(fields.object("o").map(drop), "o");
        check(fields.email("e", Null::Refused).map(drop), "e");
        check(fields.required_return_url("u").map(drop), "u");
        check(fields.texts("l").map(drop), "l");
        check(fields.text("z", 9, Null::Refused).map(drop), "z");
        assert!(matches!(fields.text("z", 9, Null::MeansNone), Ok(None)));
        assert!(matches!(
            fields.required_text("missing", 9),
            Err(Problem { kind: ProblemKind::BadRequest, .. })
        ));
    }

    #[test]
    fn return_urls_may_be_app_links_but_nothing_a_browser_would_run() {
        let check = |url: &str, good: bool| {
            let body = serde_json::json!({ "u": url }).to_string();
            let fields = Fields::parse(body.as_bytes(), None).expect("an object");
            assert_eq!(fields.required_return_url("u").is_ok(), good, "{url}");
        };
        for good in ["https://shop.example/back?x=1", "http://localhost:5173/", "myapp://done"] {
            check(good, true);
        }
        for bad in [
            "",
            "/relative",
            "JaVaScript:alert(1)",
            "data:text/html,x",
            "https://",
            "java\nscript:x",
            "https://a b/",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn a_page_has_one_to_a_hundred_rows() {
        let size = |query: &str| Query::parse(Some(query)).page_size("limit", 10).ok();
        assert_eq!(size(""), Some(10));
        assert_eq!(size("limit=100"), Some(100));
        for bad in ["limit=0", "limit=101", "limit=ten", "limit=-1", "limit="] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }
}

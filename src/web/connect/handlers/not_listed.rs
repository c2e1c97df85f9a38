//! A place that is missing: what a patient writes about it reaches staff.

use hyper::{Method, StatusCode};

use super::{Connect, Journey, PageRequest, PageTrouble, see_other};
use crate::directory::{LONGEST_NAME, LONGEST_WEBSITE, MissingPlace, PlaceField, RequestRefused, web_host};
use crate::http::Answer;
use crate::web::connect::not_listed::{NotListedPage, NotTaken, not_listed_page, told_page};
use crate::web::connect::words::Trouble;
use crate::workspaces::SessionMode;

impl Connect {
    pub(super) async fn not_listed(
        &self,
        journey: &Journey,
        request: &PageRequest,
    ) -> Result<Answer, PageTrouble> {
        self.must_be_open(journey)?;
        // Who was sent to one hospital has nothing to search for.
        if matches!(journey.session.mode, SessionMode::Direct(_)) {
            return Err(Trouble::NotFound.into());
        }
        if request.method == Method::POST {
            self.must_be_same_origin(request)?;
            return self.take_missing(journey, request).await;
        }
        if request.field("sent").is_some() && self.requests.has_told(&journey.session).await? {
            let page = told_page(&journey.path, &self.branding(journey.environment));
            return Ok(Answer::page(StatusCode::OK, page.into_string()));
        }
        let query = request.field("q").unwrap_or_default();
        let cut = |most: usize| query.trim().chars().take(most).collect::<String>();
        let typed = match web_host(&query) {
            Some(_) => [String::new(), String::new(), cut(LONGEST_WEBSITE), String::new()],
            None => [cut(LONGEST_NAME), String::new(), String::new(), String::new()],
        };
        Ok(self.missing_form(journey, StatusCode::OK, typed, Vec::new(), None))
    }

    async fn take_missing(&self, journey: &Journey, request: &PageRequest) -> Result<Answer, PageTrouble> {
        let typed =
            ["name", "city", "website", "email"].map(|name| request.form_field(name).unwrap_or_default());
        let place = match MissingPlace::read(typed.each_ref().map(String::as_str)) {
            Ok(place) => place,
            Err(wrong) => {
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                return Ok(self.missing_form(journey, status, typed, wrong, None));
            }
        };
        let busy = StatusCode::TOO_MANY_REQUESTS;
        match self.requests.tell(&journey.session, place).await {
            Ok(()) => see_other(&format!("{}/not-listed?sent=1", journey.path)),
            Err(RequestRefused::Enough) => {
                Ok(self.missing_form(journey, busy, typed, Vec::new(), Some(NotTaken::Enough)))
            }
            Err(RequestRefused::Busy) => {
                Ok(self.missing_form(journey, busy, typed, Vec::new(), Some(NotTaken::Busy)))
            }
            Err(RequestRefused::SessionGone) => Err(Trouble::SessionNotFound.into()),
            Err(RequestRefused::Store(error)) => Err(error.into()),
        }
    }

    fn missing_form(
        &self,
        journey: &Journey,
        status: StatusCode,
        typed: [String; 4],
        wrong: Vec<PlaceField>,
        refused: Option<NotTaken>,
    ) -> Answer {
        // What was far too long is not sent back whole.
        let typed = typed.map(|text| text.chars().take(4 * LONGEST_WEBSITE).collect());
        let page = NotListedPage {
            token_path: journey.path.clone(),
            branding: self.branding(journey.environment),
            typed,
            wrong,
            refused,
        };
        Answer::page(status, not_listed_page(&page).into_string())
    }
}

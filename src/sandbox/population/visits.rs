//! Visits: what a story is told in, the encounters they make, orders and documents.

use super::chart::Chart;
use super::codes::{Allergen, Form, LOINC, Medicine, Paper, Problem, Term, VisitKind};
use super::json::{Object, coding, hl7, markup, reference};
use super::measures::{Measure, Panel, Question};
use super::staff;
use crate::clock::Timestamp;
use crate::crypto::base64;

/// One visit of a story.
pub(super) struct Visit {
    /// `2019-03-04T09:30`, UTC.
    pub(super) at: &'static str,
    pub(super) kind: &'static VisitKind,
    pub(super) entries: &'static [Entry],
}

/// What can happen at a visit.
pub(super) enum Entry {
    /// Blood pressure `120/80`, weight in kg with two decimals, height in cm with one; each may be empty.
    Vitals(&'static str, &'static str, &'static str),
    Measured(&'static Measure, &'static str),
    Unknown(&'static Measure),
    Voided(&'static Measure),
    Answered(&'static Question, &'static Term),
    /// The first values of the panel; the others are usual.
    Tested(&'static Panel, &'static [&'static str]),
    /// Procedure, report and its conclusion.
    Pictured(&'static Term, &'static Term, &'static str),
    Problem(&'static Problem),
    /// A problem and the day it was over.
    Past(&'static Problem, &'static str),
    Diagnosis(&'static Problem),
    Allergy(&'static Allergen),
    Vaccines(&'static [&'static Term]),
    Refused(&'static Term),
    Takes(&'static Medicine, &'static Problem),
    Took(&'static Medicine, &'static Problem),
    Prescribed(&'static Medicine, &'static Problem),
    Done(&'static Term),
    Ordered(&'static Term),
    Pacemaker,
    Goal(&'static str),
    CareTeam,
    CarePlan(&'static str),
    Coverage,
    /// Code and display of the relationship, given and family name.
    Related((&'static str, &'static str), (&'static str, &'static str)),
    Document(&'static Paper, &'static str),
}

pub(super) const fn visit(at: &'static str, kind: &'static VisitKind, entries: &'static [Entry]) -> Visit {
    Visit { at, kind, entries }
}

impl Chart<'_, '_> {
    /// Writes all visits, in order.
    pub(super) fn live_through(&mut self, story: &[Visit]) {
        for visit in story {
            if let Some(start) = Timestamp::parse(&format!("{}:00Z", visit.at)) {
                self.visit(start, visit.kind);
                for entry in visit.entries {
                    self.tick(1);
                    self.write(entry);
                }
            }
        }
    }

    fn write(&mut self, entry: &Entry) {
        match entry {
            Entry::Vitals(pressure, weight, height) => self.vitals(pressure, weight, height),
            Entry::Measured(measure, value) => drop(self.observation(measure, value)),
            Entry::Unknown(measure) => self.unknown(measure),
            Entry::Voided(measure) => self.voided(measure),
            Entry::Answered(question, answer) => self.answer(question, answer),
            Entry::Tested(panel, values) => self.panel(panel, values),
            Entry::Pictured(procedure, report, conclusion) => self.image(procedure, report, conclusion),
            Entry::Problem(problem) => self.condition(problem, true, None),
            Entry::Past(problem, until) => self.condition(problem, true, Some(until)),
            Entry::Diagnosis(problem) => self.condition(problem, false, None),
            Entry::Allergy(allergen) => self.allergy(allergen),
            Entry::Vaccines(vaccines) => vaccines.iter().for_each(|vaccine| self.vaccine(vaccine, true)),
            Entry::Refused(vaccine) => self.vaccine(vaccine, false),
            Entry::Takes(medicine, reason) => self.medicine(medicine, "plan", "active", reason),
            Entry::Took(medicine, reason) => self.medicine(medicine, "plan", "stopped", reason),
            Entry::Prescribed(medicine, reason) => self.medicine(medicine, "order", "completed", reason),
            Entry::Done(procedure) => self.procedure(procedure),
            Entry::Ordered(service) => drop(self.order(service)),
            Entry::Pacemaker => self.pacemaker(),
            Entry::Goal(wish) => self.goal(wish),
            Entry::CareTeam => self.care_team(),
            Entry::CarePlan(title) => self.care_plan(title),
            Entry::Coverage => self.coverage(),
            Entry::Related(relationship, name) => self.related(*relationship, *name),
            Entry::Document(paper, text) => self.document(paper, text),
        }
    }

    /// Opens a visit: what is written next belongs to it.
    pub(super) fn visit(&mut self, start: Timestamp, kind: &VisitKind) {
        self.now = start;
        let id = self.number();
        let open = kind.open || self.profile.sparse;
        let inpatient = kind.class.0 == "IMP";
        let (place, specialist) = if inpatient { (staff::WARD, 1) } else { (staff::CLINIC, 0) };
        let system = "http://terminology.hl7.org/CodeSystem/v3-ActCode";
        let participant = Object::new()
            .list("type", &[hl7("v3-ParticipationType", "ATND", "attender")])
            .raw("individual", staff::practitioner(specialist));
        let location = Object::new().raw("location", reference("Location", place.0, place.1)).done();
        let mut draft = self
            .draft("Encounter", &id, kind.term.display)
            .text("status", if open { "unknown" } else { "finished" })
            .raw("class", coding(system, kind.class.0, kind.class.1, false))
            .list("type", &[kind.term.concept(71, &[])])
            .raw("subject", self.patient())
            .list("participant", &[participant.done()]);
        if !open {
            let start = self.instant();
            self.tick(kind.minutes);
            draft =
                draft.raw("period", Object::new().text("start", &start).text("end", &self.instant()).done());
            self.now = Timestamp::parse(&start).unwrap_or(self.now);
        }
        let provider = reference("Organization", staff::HOSPITAL.0, staff::HOSPITAL.1);
        self.register.push(draft.list("location", &[location]).raw("serviceProvider", provider));
        self.encounter = Some(id);
    }

    /// An order; gives its id.
    pub(super) fn order(&mut self, service: &Term) -> String {
        let id = self.number();
        let category = match service.system {
            LOINC => ("http://snomed.info/sct", "108252007", "Laboratory procedure"),
            _ => ("http://snomed.info/sct", "386053000", "Evaluation procedure"),
        };
        let draft = self
            .subject("ServiceRequest", &id, service.display)
            .text("status", "completed")
            .text("intent", "order")
            .category(&[category])
            .text("priority", "routine")
            .coded("code", 200, service)
            .text("occurrenceDateTime", &self.moment())
            .text("authoredOn", &self.instant())
            .raw("requester", staff::practitioner(0));
        self.register.push(draft);
        id
    }

    pub(super) fn document(&mut self, paper: &Paper, text: &str) {
        let id = self.number();
        let forms = paper.forms.iter().map(|form| {
            let format = coding(
                "http://terminology.hl7.org/CodeSystem/data-absent-reason",
                "unknown",
                "Unknown",
                false,
            );
            let attachment = self.stored(form, &id, paper.term.display, text);
            Object::new().raw("attachment", attachment).raw("format", format).done()
        });
        let forms: Vec<String> = forms.collect();
        let stamp = self.instant().replace(['-', ':', 'T', 'Z', '.'], "");
        let event = Object::new().text("system", "https://fhir.cerner.com/ceuuid");
        let event =
            event.text("value", &format!("CE{:08x}-{id}-{stamp}", self.register.below(1 << 32))).done();
        let visit: Vec<String> = self.encounter.iter().map(|id| reference("Encounter", id, "")).collect();
        let period = Object::new().text("start", &self.instant()).text("end", &self.instant()).done();
        let draft = self
            .draft("DocumentReference", &id, paper.term.display)
            .list("identifier", &[event])
            .text("status", "current")
            .text("docStatus", "final")
            .coded("type", 72, &paper.term)
            .category(&[(
                "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
                "clinical-note",
                "Clinical Note",
            )])
            .raw("subject", self.patient())
            .text("date", &self.moment())
            .list("author", &[staff::practitioner(0)])
            .list("content", &forms)
            .raw("context", Object::new().list("encounter", &visit).raw("period", period).done());
        self.register.push(draft);
    }

    /// Stores one form of a document as a Binary; gives the attachment that leads to it by a relative URL.
    pub(super) fn stored(&mut self, form: &Form, document: &str, title: &str, text: &str) -> String {
        let (prefix, content_type, bytes) = match form {
            Form::Pdf => ("XR", "application/pdf", pdf(&format!("{title}: {text}"))),
            Form::Html => (
                "TR",
                "text/html",
                format!(
                    "<html><head><meta charset=\"utf-8\"></head><body><h1>{}</h1><p>{}</p><p>{}</p></body></html>",
                    markup(title),
                    markup(&self.name),
                    markup(text)
                )
                .into_bytes(),
            ),
            Form::Plain => ("R", "text/plain", format!("{title}\n{}\n\n{text}\n", self.name).into_bytes()),
        };
        let id = format!("{prefix}-{document}");
        let draft = self
            .draft("Binary", &id, "")
            .text("contentType", content_type)
            .raw("securityContext", self.patient())
            .text("data", &base64(&bytes));
        self.register.push(draft);
        let attachment = Object::new().text("contentType", content_type).text("url", &format!("Binary/{id}"));
        attachment.text("title", title).text("creation", &self.instant()).done()
    }
}

/// A PDF of one line of text; what is not plain ASCII becomes a question mark.
fn pdf(line: &str) -> Vec<u8> {
    let line: String = line
        .chars()
        .map(|letter| match letter {
            '(' | ')' | '\\' => ' ',
            letter if letter.is_ascii_graphic() || letter == ' ' => letter,
            _ => '?',
        })
        .collect();
    let text = format!("BT /F1 11 Tf 40 740 Td ({line}) Tj ET");
    let objects = [
        "<</Type/Catalog/Pages 2 0 R>>".to_owned(),
        "<</Type/Pages/Kids[3 0 R]/Count 1>>".to_owned(),
        "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>"
            .to_owned(),
        format!("<</Length {}>>stream\n{text}\nendstream", text.len()),
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>".to_owned(),
    ];
    let mut out = Vec::from("%PDF-1.4\n");
    let mut table = vec!["0000000000 65535 f \n".to_owned()];
    for (position, object) in objects.iter().enumerate() {
        table.push(format!("{:010} 00000 n \n", out.len()));
        out.extend_from_slice(format!("{} 0 obj\n{object}\nendobj\n", position + 1).as_bytes());
    }
    let (start, table) = (out.len(), table.concat());
    let end = format!("xref\n0 6\n{table}trailer\n<</Size 6/Root 1 0 R>>\nstartxref\n{start}\n%%EOF\n");
    out.extend_from_slice(end.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_a_pdf_points_at_its_objects() {
        let bytes = pdf("a (note) of Zoë");
        let text = String::from_utf8(bytes).expect("ASCII");
        assert!(text.contains("a  note  of Zo?"));
        let table = text.rsplit_once("xref\n0 6\n").expect("a table").1;
        for (position, line) in
            text[text.find("xref\n0").expect("a table")..].lines().skip(3).take(5).enumerate()
        {
            let offset: usize = line[..10].parse().expect("a number");
            assert!(text[offset..].starts_with(&format!("{} 0 obj", position + 1)), "{table}");
        }
    }
}

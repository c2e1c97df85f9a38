//! Observations and the reports that gather them.

use super::chart::{Chart, Draft};
use super::codes::{Term, loinc};
use super::json::{Object, decimal, hl7, quantity, reference};
use super::measures::{
    BLOOD_PRESSURE, BMI, BREATHING, DIASTOLIC, HEIGHT, INFANT_BREATHING, INFANT_PULSE, Kind, Measure, PULSE,
    Panel, Question, SYSTOLIC, TEMPERATURE, WEIGHT,
};
use super::staff;

impl Measure {
    /// A reported value in units of its last decimal: `7.0` is 70.
    fn scaled(value: &str) -> u64 {
        value.bytes().filter(u8::is_ascii_digit).fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    }

    fn interpretation(&self, value: &str) -> String {
        let scaled = Self::scaled(value);
        let (code, display) = match scaled {
            low if low < self.low => ("L", "Low"),
            high if high > self.high => ("H", "High"),
            _ => ("N", "Normal"),
        };
        hl7("v3-ObservationInterpretation", code, display)
    }

    fn reference_range(&self) -> String {
        let low = quantity(&decimal(self.low, self.decimals), self.unit);
        let high = quantity(&decimal(self.high, self.decimals), self.unit);
        Object::new().raw("low", low).raw("high", high).done()
    }
}

impl Chart<'_, '_> {
    /// A value from the usual range.
    pub(super) fn usual(&self, measure: &Measure) -> String {
        let value = measure.low + self.register.below(measure.high - measure.low + 1);
        decimal(value, measure.decimals)
    }

    fn result(&mut self, kind: Kind, term: &Term) -> (String, Draft) {
        let (category, display, prefix) = kind.naming();
        let mut id = format!("{prefix}-{}", self.register.next_id());
        if kind == Kind::Survey {
            // An answer's id names the form and the question.
            id = format!("{id}-q{}.{}", self.register.next_id(), term.code);
        }
        let system = "http://terminology.hl7.org/CodeSystem/observation-category";
        // The vendor writes narratives for laboratory results rarely.
        let about = if kind == Kind::Laboratory { "" } else { term.display };
        let draft = self
            .subject("Observation", &id, about)
            .text("status", "final")
            .category(&[(system, category, display)])
            .coded("code", 72, term)
            .text("effectiveDateTime", &self.moment())
            .text("issued", &self.instant())
            .list("performer", &[staff::practitioner(0)]);
        (id, draft)
    }

    /// One measured value; its text is written as it is.
    pub(super) fn observation(&mut self, measure: &Measure, value: &str) -> String {
        let (id, draft) = self.result(measure.kind, &measure.term);
        let draft = draft
            .raw("valueQuantity", quantity(value, measure.unit))
            .list("interpretation", &[measure.interpretation(value)])
            .list("referenceRange", &[measure.reference_range()]);
        self.register.push(draft);
        id
    }

    /// A value that was wanted and is not known.
    pub(super) fn unknown(&mut self, measure: &Measure) {
        let (_, draft) = self.result(measure.kind, &measure.term);
        self.register.push(draft.raw("dataAbsentReason", hl7("data-absent-reason", "unknown", "Unknown")));
    }

    /// What the vendor leaves of a result that was charted by mistake: few elements, no value.
    pub(super) fn voided(&mut self, measure: &Measure) {
        let (category, display, prefix) = measure.kind.naming();
        let id = format!("{prefix}-{}", self.register.next_id());
        let system = "http://terminology.hl7.org/CodeSystem/observation-category";
        let draft = self
            .draft("Observation", &id, "Entered in error")
            .text("status", "entered-in-error")
            .category(&[(system, category, display)])
            .coded("code", 72, &measure.term)
            .raw("subject", self.patient())
            .raw("dataAbsentReason", hl7("data-absent-reason", "error", "Error"));
        self.register.push(draft);
    }

    /// An answer with a code.
    pub(super) fn answer(&mut self, question: &Question, answer: &Term) {
        let (_, draft) = self.result(question.kind, &question.term);
        self.register.push(draft.raw("valueCodeableConcept", answer.concept(72, &[])));
    }

    pub(super) fn blood_pressure(&mut self, systolic: &str, diastolic: &str) {
        let (_, draft) = self.result(Kind::VitalSign, &BLOOD_PRESSURE);
        let component = |(measure, value): (&Measure, &str)| {
            let component = Object::new().raw("code", measure.term.concept(72, &[]));
            component.raw("valueQuantity", quantity(value, measure.unit)).done()
        };
        let components = [(&SYSTOLIC, systolic), (&DIASTOLIC, diastolic)].map(component);
        self.register.push(draft.list("component", &components));
    }

    /// What is measured at most visits. Empty for not measured; infants have no blood pressure taken.
    pub(super) fn vitals(&mut self, pressure: &str, weight: &str, height: &str) {
        if let Some((systolic, diastolic)) = pressure.split_once('/') {
            self.blood_pressure(systolic, diastolic);
        }
        // Below 20 kg it is a small child, whose heart beats faster.
        let infant = (1..2_000).contains(&Measure::scaled(weight));
        let (pulse, breathing) =
            if infant { (&INFANT_PULSE, &INFANT_BREATHING) } else { (&PULSE, &BREATHING) };
        for measure in [pulse, breathing, &TEMPERATURE] {
            let value = self.usual(measure);
            self.observation(measure, &value);
        }
        for (measure, value) in [(&WEIGHT, weight), (&HEIGHT, height)] {
            if !value.is_empty() {
                self.observation(measure, value);
            }
        }
        let (weight, height) = (Measure::scaled(weight), Measure::scaled(height));
        if weight > 0 && height > 0 {
            // Weight counts 10 g, height 1 mm: kg/m² in tenths.
            self.observation(&BMI, &decimal(weight * 100_000 / (height * height), 1));
        }
    }

    /// An order, its results and their report. Values are given in the order of the members; the rest is usual.
    pub(super) fn panel(&mut self, panel: &Panel, values: &[&str]) {
        let order = self.order(&panel.term);
        self.tick(45);
        let mut results = Vec::new();
        for (position, measure) in panel.members.iter().enumerate() {
            let value = values.get(position).map_or_else(|| self.usual(measure), |value| (*value).to_owned());
            results.push(self.observation(measure, &value));
        }
        self.tick(20);
        self.report(&panel.term, Some(&order), &results);
    }

    /// The laboratory's report of some results.
    pub(super) fn report(&mut self, term: &Term, order: Option<&str>, results: &[String]) {
        let id = self.number();
        let laboratory = reference("Organization", staff::LABORATORY.0, staff::LABORATORY.1);
        let results: Vec<String> = results.iter().map(|id| reference("Observation", id, "")).collect();
        let order: Vec<String> = order.iter().map(|id| reference("ServiceRequest", id, "")).collect();
        let draft = self
            .subject("DiagnosticReport", &id, term.display)
            .list("basedOn", &order)
            .text("status", "final")
            .category(&[
                ("http://terminology.hl7.org/CodeSystem/v2-0074", "LAB", "Laboratory"),
                ("http://loinc.org", "LP29693-6", "Laboratory"),
            ])
            .coded("code", 72, term)
            .text("effectiveDateTime", &self.moment())
            .text("issued", &self.instant())
            .list("performer", &[laboratory])
            .list("result", &results);
        self.register.push(draft);
    }

    /// A picture or a trace: the procedure, and a report whose text is an attachment.
    pub(super) fn image(&mut self, procedure: &Term, report: &Term, conclusion: &str) {
        let order = self.order(procedure);
        self.procedure(procedure);
        self.tick(15);
        let id = self.number();
        let form = self.stored(&super::codes::Form::Pdf, &id, report.display, conclusion);
        let radiology = loinc("LP29684-5", "Radiology");
        let draft = self
            .subject("DiagnosticReport", &id, report.display)
            .list("basedOn", &[reference("ServiceRequest", &order, "")])
            .text("status", "final")
            .category(&[(radiology.system, radiology.code, radiology.display)])
            .coded("code", 72, report)
            .text("effectiveDateTime", &self.moment())
            .text("issued", &self.instant())
            .list("resultsInterpreter", &[staff::practitioner(1)])
            .text("conclusion", conclusion)
            .list("presentedForm", &[form]);
        self.register.push(draft);
    }
}

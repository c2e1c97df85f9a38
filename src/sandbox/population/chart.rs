//! The register that all resources are written into, and the chart of one patient: ids, dates, references.

use super::codes::{TENANT, Term};
use super::json::{Object, absent, coding, concept, hl7, markup, quoted, reference};
use super::staff;
use super::visits::Visit;
use super::{Person, Resource, person};
use crate::clock::Timestamp;
use crate::crypto::Random;
use std::time::Duration;

/// When the hospital's system was installed; what has no date of its own was written then.
const BEGINNING: Timestamp = Timestamp::from_seconds(1_420_070_400);

/// When the register of patients was last gone through: 2025-12-01.
const REVIEWED: Timestamp = Timestamp::from_seconds(1_764_547_200);

/// One invented patient: who it is and what happened.
pub(super) struct Profile {
    pub(super) id: &'static str,
    pub(super) given: &'static [&'static str],
    pub(super) family: &'static str,
    /// The name in another script, when there is one.
    pub(super) also: Option<&'static str>,
    pub(super) sex: &'static str,
    pub(super) born: &'static str,
    /// The id of an older record that was merged into this one.
    pub(super) replaces: Option<&'static str>,
    /// The source knows little: elements are missing, or say why they are.
    pub(super) sparse: bool,
    pub(super) story: &'static [Visit],
}

/// A patient with an ordinary record; `sex` and birth date are one argument.
pub(super) const fn profile(
    id: &'static str,
    given: &'static [&'static str],
    family: &'static str,
    (sex, born): (&'static str, &'static str),
    story: &'static [Visit],
) -> Profile {
    Profile { id, given, family, also: None, sex, born, replaces: None, sparse: false, story }
}

/// All that has been written so far.
pub(super) struct Register<'a> {
    random: &'a Random,
    last_id: u64,
    pub(super) people: Vec<Person>,
    pub(super) resources: Vec<Resource>,
}

/// A resource being written.
pub(super) struct Draft {
    head: Resource,
    object: Object,
}

/// The chart of one patient, open at one moment of one visit.
pub(super) struct Chart<'r, 'a> {
    pub(super) register: &'r mut Register<'a>,
    pub(super) profile: &'static Profile,
    pub(super) name: String,
    pub(super) now: Timestamp,
    pub(super) encounter: Option<String>,
    /// SNOMED code and id of each Condition so far.
    pub(super) problems: Vec<(&'static str, String)>,
    pub(super) goals: Vec<String>,
    pub(super) care_team: Option<String>,
}

impl<'a> Register<'a> {
    pub(super) fn new(random: &'a Random) -> Self {
        Self { random, last_id: 70_000_000, people: Vec::new(), resources: Vec::new() }
    }

    /// The next number for an id: always greater, with gaps, as a busy hospital has them.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1 + self.random.below(90);
        self.last_id
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    pub(super) fn push(&mut self, draft: Draft) {
        self.resources.push(Resource { json: draft.object.done().into(), ..draft.head });
    }

    /// Opens the chart of a new patient, who can sign in from now on.
    pub(super) fn admit(&mut self, profile: &'static Profile) -> Chart<'_, 'a> {
        let name = format!("{} {}", profile.given.join(" "), profile.family);
        self.people.push(person(self.people.len() + 1, profile.id.to_owned(), name.clone()));
        let mut chart = Chart {
            register: self,
            profile,
            name,
            now: REVIEWED,
            encounter: None,
            problems: Vec::new(),
            goals: Vec::new(),
            care_team: None,
        };
        chart.demographics();
        chart
    }
}

impl Draft {
    /// A resource from the beginning of the system, of no patient, or of the one given.
    pub(super) fn early(resource_type: &str, id: &str, patient_id: Option<&str>) -> Self {
        Self::new(resource_type, id, patient_id, BEGINNING, "1", "")
    }

    fn new(
        resource_type: &str,
        id: &str,
        patient_id: Option<&str>,
        last_updated: Timestamp,
        version: &str,
        div: &str,
    ) -> Self {
        let meta =
            Object::new().text("versionId", version).text("lastUpdated", &last_updated.to_string()).done();
        let mut object = Object::new().text("resourceType", resource_type).text("id", id).raw("meta", meta);
        if !div.is_empty() {
            let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{div}</div>");
            object = object.raw("text", Object::new().text("status", "generated").text("div", &div).done());
        }
        let head = Resource {
            resource_type: resource_type.to_owned(),
            id: id.to_owned(),
            patient_id: patient_id.map(str::to_owned),
            json: "".into(),
            category_codes: Vec::new(),
            last_updated,
        };
        Self { head, object }
    }

    #[must_use]
    pub(super) fn raw(mut self, key: &str, json: impl AsRef<str>) -> Self {
        self.object = self.object.raw(key, json);
        self
    }

    #[must_use]
    pub(super) fn text(self, key: &str, value: &str) -> Self {
        self.raw(key, quoted(value))
    }

    #[must_use]
    pub(super) fn list(mut self, key: &str, items: &[String]) -> Self {
        self.object = self.object.list(key, items);
        self
    }

    /// The `category` element, each of one code (system, code, display).
    #[must_use]
    pub(super) fn category(mut self, codings: &[(&str, &str, &str)]) -> Self {
        let mut concepts = Vec::new();
        for (system, code, display) in codings {
            self.head.category_codes.extend([(*code).to_owned(), (*display).to_owned()]);
            concepts.push(concept(&[coding(system, code, display, false)], display));
        }
        self.list("category", &concepts)
    }

    /// A `category` of bare codes, as `AllergyIntolerance` has it.
    #[must_use]
    pub(super) fn bare_category(mut self, code: &str) -> Self {
        self.head.category_codes.push(code.to_owned());
        self.list("category", &[quoted(code)])
    }

    /// A `CodeableConcept` member with the tenant's code before the public one.
    #[must_use]
    pub(super) fn coded(self, key: &str, code_set: u32, term: &Term) -> Self {
        self.raw(key, term.concept(code_set, &[]))
    }
}

impl Term {
    /// The tenant's own code, then the public code (unless there is none) and what else is known.
    pub(super) fn concept(&self, code_set: u32, more: &[String]) -> String {
        let own = self
            .display
            .bytes()
            .fold(2_500_000_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)) % 9_000_000);
        let system = format!("{TENANT}/codeSet/{code_set}");
        let mut codings = vec![coding(&system, &own.to_string(), self.display, true)];
        if !self.code.is_empty() {
            codings.push(coding(self.system, self.code, self.display, false));
        }
        codings.extend_from_slice(more);
        concept(&codings, self.display)
    }
}

impl Chart<'_, '_> {
    pub(super) fn number(&mut self) -> String {
        self.register.next_id().to_string()
    }

    pub(super) fn tick(&mut self, minutes: u64) {
        self.now = self.now.after(Duration::from_secs(60 * minutes));
    }

    /// The present moment with milliseconds; [`Chart::moment`] is without: the vendor sends both forms.
    pub(super) fn instant(&self) -> String {
        self.now.to_string()
    }

    pub(super) fn moment(&self) -> String {
        self.instant().replace(".000Z", "Z")
    }

    pub(super) fn day(&self) -> String {
        self.instant()[..10].to_owned()
    }

    /// The patient as `subject`, `patient` or `beneficiary`.
    pub(super) fn patient(&self) -> String {
        reference("Patient", self.profile.id, &self.name)
    }

    /// A resource of this patient, with a narrative of its type, the patient's name and `about`.
    pub(super) fn draft(&mut self, resource_type: &str, id: &str, about: &str) -> Draft {
        let written = self.now.after(Duration::from_secs(60 * (5 + self.register.below(50))));
        let version = self.register.below(4).to_string();
        let div = format!(
            "<p><b>{resource_type}</b></p><p><b>Patient</b>: {}</p><p>{}</p>",
            markup(&self.name),
            markup(about)
        );
        let div = if about.is_empty() { "" } else { &div };
        Draft::new(resource_type, id, Some(self.profile.id), written, &version, div)
    }

    /// As [`Chart::draft`] with the subject, and the visit when one is open.
    pub(super) fn subject(&mut self, resource_type: &str, id: &str, about: &str) -> Draft {
        let draft = self.draft(resource_type, id, about).raw("subject", self.patient());
        self.during(draft)
    }

    /// Adds the open visit.
    pub(super) fn during(&self, draft: Draft) -> Draft {
        match &self.encounter {
            Some(encounter) => draft.raw("encounter", reference("Encounter", encounter, "")),
            None => draft,
        }
    }

    fn demographics(&mut self) {
        let profile = self.profile;
        let number = self.number();
        let given: Vec<String> = profile.given.iter().map(|name| quoted(name)).collect();
        let name = Object::new().text("use", "official").text("text", &self.name);
        let mut names = vec![name.text("family", profile.family).list("given", &given).done()];
        names.extend(profile.also.map(|also| Object::new().text("use", "usual").text("text", also).done()));
        let identifier = Object::new().text("use", "usual").raw("type", hl7("v2-0203", "MR", "MRN"));
        let identifier =
            identifier.text("system", "urn:oid:2.16.840.1.113883.3.13.6.999").text("value", &number);
        let phone = Object::new().text("system", "phone").text("use", "mobile");
        let phone = if profile.sparse {
            phone.raw("_value", absent("masked"))
        } else {
            phone.text("value", &format!("555-01{}", &profile.id[profile.id.len() - 2..]))
        };
        let birth_sex = match profile.sex {
            "male" => "M",
            "female" => "F",
            _ => "UNK",
        };
        let birth_sex = Object::new()
            .text("url", "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex")
            .text("valueCode", birth_sex);
        let draft = self.draft("Patient", profile.id, profile.born).list("extension", &[birth_sex.done()]);
        let mut draft = draft.list("identifier", &[identifier.done()]).raw("active", "true");
        draft = draft.list("name", &names).list("telecom", &[phone.done()]).text("gender", profile.sex);
        draft = if profile.sparse {
            draft.raw("_birthDate", absent("masked"))
        } else {
            let address = Object::new().text("use", "home").list("line", &[quoted("1 Nowhere Lane")]);
            let address =
                address.text("city", "Sandbox City").text("state", "MO").text("postalCode", "00000");
            draft.text("birthDate", profile.born).list("address", &[address.done()])
        };
        let language = concept(&[coding("urn:ietf:bcp:47", "en", "English", false)], "English");
        let language = Object::new().raw("language", language).raw("preferred", "true").done();
        draft =
            draft.list("communication", &[language]).list("generalPractitioner", &[staff::practitioner(0)]);
        draft = draft
            .raw("managingOrganization", reference("Organization", staff::HOSPITAL.0, staff::HOSPITAL.1));
        if let Some(old) = profile.replaces {
            let link = |other, kind| {
                Object::new().raw("other", reference("Patient", other, "")).text("type", kind).done()
            };
            draft = draft.list("link", &[link(old, "replaces")]);
            // What the vendor answers for the record that was merged away: no name, only where to look.
            let merged = Draft::early("Patient", old, Some(old)).raw("active", "false");
            self.register.push(merged.list("link", &[link(profile.id, "replaced-by")]));
        }
        self.register.push(draft);
    }
}

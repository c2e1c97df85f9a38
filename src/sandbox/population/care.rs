//! What a chart holds besides visits and results: problems, medicines, immunizations, plans and people.

use super::chart::Chart;
use super::codes::{Allergen, ICD10, Medicine, PACEMAKER, PACEMAKER_INSERTION, Problem, Term, snomed};
use super::json::{Object, absent, coding, concept, hl7, quoted, reference};
use super::staff;

impl Chart<'_, '_> {
    /// A problem of the list, or (not `listed`) the diagnosis of the open visit; resolved on a day, or not yet.
    pub(super) fn condition(&mut self, problem: &'static Problem, listed: bool, until: Option<&str>) {
        let id = if listed { format!("p{}", self.register.next_id()) } else { self.number() };
        let (code, display) = if listed {
            ("problem-list-item", "Problem List Item")
        } else {
            ("encounter-diagnosis", "Encounter Diagnosis")
        };
        let mut draft = self.subject("Condition", &id, problem.term.display);
        if !self.profile.sparse {
            let (status, display) =
                if until.is_some() { ("resolved", "Resolved") } else { ("active", "Active") };
            draft = draft.raw("clinicalStatus", hl7("condition-clinical", status, display));
        }
        let icd10 = coding(ICD10, problem.icd10, problem.term.display, false);
        draft = draft
            .raw("verificationStatus", hl7("condition-ver-status", "confirmed", "Confirmed"))
            .category(&[("http://terminology.hl7.org/CodeSystem/condition-category", code, display)])
            .raw("code", problem.term.concept(4_002_165, &[icd10]))
            .text("onsetDateTime", &self.day())
            .text("recordedDate", &self.instant())
            .raw("recorder", staff::practitioner(0));
        if let Some(day) = until {
            draft = draft.text("abatementDateTime", day);
        }
        self.register.push(draft);
        self.problems.push((problem.term.code, id));
    }

    /// A reference to the newest Condition with this problem's code.
    fn because(&self, problem: &Problem) -> Option<String> {
        let known = self.problems.iter().rev().find(|(code, _)| *code == problem.term.code);
        known.map(|(_, id)| reference("Condition", id, problem.term.display))
    }

    pub(super) fn allergy(&mut self, allergen: &Allergen) {
        let id = self.number();
        let mut draft = self.draft("AllergyIntolerance", &id, allergen.term.display);
        if !self.profile.sparse {
            draft = draft.raw("clinicalStatus", hl7("allergyintolerance-clinical", "active", "Active"));
        }
        let manifestation = allergen.reaction.concept(29_747, &[]);
        let reaction = Object::new().list("manifestation", &[manifestation]).done();
        draft = draft
            .raw("verificationStatus", hl7("allergyintolerance-verification", "confirmed", "Confirmed"))
            .text("type", "allergy")
            .bare_category(allergen.category)
            .text("criticality", allergen.criticality)
            .coded("code", 12_100, &allergen.term)
            .raw("patient", self.patient())
            .text("recordedDate", &self.moment())
            .list("reaction", &[reaction]);
        let draft = self.during(draft);
        self.register.push(draft);
    }

    /// An immunization given now, or refused.
    pub(super) fn vaccine(&mut self, vaccine: &Term, given: bool) {
        let id = format!("M{}", self.register.next_id());
        let lot = format!("LOT{:04}", self.register.below(10_000));
        let draft = self.draft("Immunization", &id, vaccine.display);
        let mut draft = draft.text("status", if given { "completed" } else { "not-done" });
        if !given {
            draft = draft.raw("statusReason", hl7("v3-ActReason", "PATOBJ", "patient objection"));
        }
        draft = draft
            .coded("vaccineCode", 72, vaccine)
            .raw("patient", self.patient())
            .text("occurrenceDateTime", &self.moment())
            .raw("primarySource", "true")
            .raw("location", reference("Location", staff::CLINIC.0, staff::CLINIC.1));
        if given {
            let dose = super::json::quantity("0.50", "mL");
            draft = draft.text("lotNumber", &lot).raw("doseQuantity", dose);
        }
        let draft = self.during(draft);
        self.register.push(draft);
    }

    /// A medicine: `plan` for what the patient takes, `order` for what was prescribed at this visit.
    pub(super) fn medicine(&mut self, medicine: &Medicine, intent: &str, status: &str, reason: &Problem) {
        let id = self.number();
        let timing = if medicine.dosage.contains("BID") { "2" } else { "1" };
        let repeat =
            Object::new().raw("frequency", timing).raw("period", "1.0").text("periodUnit", "d").done();
        let dosage = Object::new()
            .text("text", medicine.dosage)
            .text("patientInstruction", "Take as agreed with your care team")
            .raw("timing", Object::new().raw("repeat", repeat).done());
        let mut draft = self
            .subject("MedicationRequest", &id, medicine.term.display)
            .text("status", status)
            .text("intent", intent)
            .category(&[(
                "http://terminology.hl7.org/CodeSystem/medicationrequest-category",
                "community",
                "Community",
            )])
            .raw("reportedBoolean", if intent == "plan" { "true" } else { "false" })
            .coded("medicationCodeableConcept", 2_017, &medicine.term)
            .text("authoredOn", &self.instant())
            .raw("requester", staff::practitioner(0));
        draft = match self.because(reason) {
            Some(condition) => draft.list("reasonReference", &[condition]),
            None => draft.list("reasonCode", &[reason.term.concept(4_002_165, &[])]),
        };
        self.register.push(draft.list("dosageInstruction", &[dosage.done()]));
    }

    pub(super) fn procedure(&mut self, procedure: &Term) {
        let id = self.number();
        let performer = Object::new().raw("actor", staff::practitioner(1)).done();
        let draft = self
            .subject("Procedure", &id, procedure.display)
            .text("status", "completed")
            .coded("code", 4_002_165, procedure)
            .text("performedDateTime", &self.moment())
            .list("performer", &[performer]);
        self.register.push(draft);
    }

    /// A pacemaker, and the operation that put it in.
    pub(super) fn pacemaker(&mut self) {
        self.pacemaker_device();
        self.procedure(&PACEMAKER_INSERTION);
    }

    pub(super) fn pacemaker_device(&mut self) {
        let (id, serial) = (self.number(), self.number());
        let barcode = format!("(01)00000000000017(21){serial}");
        let udi =
            Object::new().text("deviceIdentifier", "00000000000017").text("carrierHRF", &barcode).done();
        let name = Object::new().text("name", "Pacemaker Plus").text("type", "user-friendly-name").done();
        let draft = self
            .draft("Device", &id, PACEMAKER.display)
            .list("udiCarrier", &[udi])
            .text("status", "active")
            .text("manufacturer", "Invented Devices")
            .text("manufactureDate", "2020-01-09T12:00:00.000Z")
            .text("serialNumber", &serial)
            .list("deviceName", &[name])
            .coded("type", 72, &PACEMAKER)
            .raw("patient", self.patient());
        self.register.push(draft);
    }

    pub(super) fn goal(&mut self, wish: &str) {
        let id = self.number();
        let target = Object::new().text("dueDate", &format!("{}-12-31", &self.day()[..4])).done();
        let draft = self
            .draft("Goal", &id, wish)
            .text("lifecycleStatus", "active")
            .raw("achievementStatus", hl7("goal-achievement", "in-progress", "In Progress"))
            .category(&[("http://terminology.hl7.org/CodeSystem/goal-category", "behavioral", "Behavioral")])
            .raw("description", Object::new().text("text", wish).done())
            .raw("subject", self.patient())
            .text("startDate", &self.day())
            .list("target", &[target])
            .raw("expressedBy", self.patient());
        self.register.push(draft);
        self.goals.push(id);
    }

    /// The plan for the newest problems and goals, at most six of each.
    pub(super) fn care_plan(&mut self, title: &str) {
        let id = self.number();
        let conditions = self.problems.iter().rev().take(6).map(|(_, id)| reference("Condition", id, ""));
        let conditions: Vec<String> = conditions.collect();
        let goals = self.goals.iter().rev().take(6).map(|id| reference("Goal", id, ""));
        let goals: Vec<String> = goals.collect();
        let team: Vec<String> = self.care_team.iter().map(|id| reference("CareTeam", id, "")).collect();
        let draft = self
            .subject("CarePlan", &id, title)
            .text("status", "active")
            .text("intent", "plan")
            .category(&[(
                "http://hl7.org/fhir/us/core/CodeSystem/careplan-category",
                "assess-plan",
                "Assessment and Plan of Treatment",
            )])
            .text("title", title)
            .raw("period", Object::new().text("start", &self.instant()).done())
            .raw("author", staff::practitioner(0))
            .list("careTeam", &team)
            .list("addresses", &conditions)
            .list("goal", &goals);
        self.register.push(draft);
    }

    /// The longitudinal care team; its id is as long and dotted as the vendor's longest.
    pub(super) fn care_team(&mut self) {
        let (first, second) = (self.number(), self.number());
        let id = format!("CARE.TEAM-{}-{first}-17490349.4048128-0-{second}", self.profile.id);
        let roles = [snomed("446050000", "Primary care physician"), snomed("17561000", "Cardiologist")];
        let member = |(position, role): (usize, &Term)| {
            let member = Object::new().list("role", &[role.concept(101, &[])]);
            member.raw("member", staff::practitioner(position)).done()
        };
        let members: Vec<String> = roles.iter().enumerate().map(member).collect();
        let draft = self
            .draft("CareTeam", &id, "Care team")
            .text("status", "active")
            .category(&[(
                "http://loinc.org",
                "LA28865-6",
                "Longitudinal care-coordination focused care team",
            )])
            .text("name", "Primary care team")
            .raw("subject", self.patient())
            .list("participant", &members)
            .list("managingOrganization", &[reference("Organization", staff::HOSPITAL.0, staff::HOSPITAL.1)]);
        self.register.push(draft);
        self.care_team = Some(id);
    }

    pub(super) fn coverage(&mut self) {
        let (plan, number) = (self.number(), self.number());
        let id = format!("{}-{plan}-{number}", self.profile.id);
        let plan_type = concept(
            &[coding("http://terminology.hl7.org/CodeSystem/coverage-class", "plan", "Plan", false)],
            "Plan",
        );
        let class = Object::new().raw("type", plan_type).text("value", &plan).text("name", "Invented PPO");
        let draft = self
            .draft("Coverage", &id, staff::PAYER.1)
            .text("status", "active")
            .raw("subscriber", self.patient())
            .text("subscriberId", &number)
            .raw("beneficiary", self.patient())
            .raw("relationship", hl7("subscriber-relationship", "self", "Self"))
            .raw("period", Object::new().text("start", &self.instant()).done())
            .list("payor", &[reference("Organization", staff::PAYER.0, staff::PAYER.1)])
            .list("class", &[class.done()]);
        self.register.push(draft);
    }

    /// Someone who is there for the patient: code of the relationship, its display, given and family name.
    pub(super) fn related(&mut self, (code, display): (&str, &str), (given, family): (&str, &str)) {
        let id = format!("{}-{}", self.profile.id, self.register.next_id());
        let level =
            concept(&[coding("http://hl7.org/fhir/resource-types", "Patient", "Patient", false)], "Patient");
        let level = Object::new()
            .raw("valueCodeableConcept", level)
            .text("url", "https://fhir-ehr.cerner.com/r4/StructureDefinition/relationship-level");
        let name = Object::new().text("use", "usual").text("text", &format!("{given} {family}"));
        let name = name.text("family", family).list("given", &[quoted(given)]).done();
        let draft = self
            .draft("RelatedPerson", &id, display)
            .list("extension", &[level.done()])
            .raw("active", "true")
            .raw("patient", self.patient())
            .list("relationship", &[hl7("v3-RoleCode", code, display)])
            .list("name", &[name])
            .raw("_birthDate", absent("unknown"));
        self.register.push(draft);
    }
}

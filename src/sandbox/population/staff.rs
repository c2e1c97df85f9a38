//! The hospital itself: who works there, where, and who pays.

use super::chart::{Draft, Register};
use super::json::{Object, hl7, reference};

pub(super) const HOSPITAL: (&str, &str) = ("589801", "Sandbox General Hospital");
pub(super) const LABORATORY: (&str, &str) = ("589802", "Sandbox Reference Laboratory");
pub(super) const PAYER: (&str, &str) = ("589803", "Invented Mutual Health Plan");
pub(super) const CLINIC: (&str, &str) = ("32545019", "Sandbox Clinic, Room 7");
pub(super) const WARD: (&str, &str) = ("32545020", "Sandbox General, Ward 2 West");

/// Id, family name, given name, speciality.
pub(super) const PRACTITIONERS: [(&str, &str, &str, &str); 4] = [
    ("4122601", "Fictional", "Quinn", "Family medicine"),
    ("4122602", "Pretendson", "Amal", "Cardiology"),
    ("4122603", "Imaginova", "Lena", "Obstetrics"),
    ("4122604", "Makebelief", "Tomás", "Pediatrics"),
];

/// Someone who works here and can open an app in a chart.
pub(in crate::sandbox) struct Clinician {
    /// Log-in name.
    pub username: String,
    /// Of the Practitioner.
    pub id: String,
    /// The name as a page shows it.
    pub display: String,
}

/// Everyone who works here; they are logged in already.
pub(in crate::sandbox) fn clinicians() -> impl Iterator<Item = Clinician> {
    PRACTITIONERS.iter().zip(1..).map(|((id, family, given, speciality), position)| Clinician {
        username: format!("clinician-{position}"),
        id: (*id).to_owned(),
        display: format!("{given} {family}, {speciality}"),
    })
}

/// How the vendor shows a practitioner.
pub(super) fn practitioner(position: usize) -> String {
    let (id, family, given, _) = PRACTITIONERS[position % PRACTITIONERS.len()];
    reference("Practitioner", id, &format!("{family}, {given}"))
}

/// Writes the resources that belong to no patient.
pub(super) fn write(register: &mut Register) {
    let (provider, insurer) = (("prov", "Healthcare Provider"), ("ins", "Insurance Company"));
    for ((id, name), kind) in [(HOSPITAL, provider), (LABORATORY, provider), (PAYER, insurer)] {
        let draft = Draft::early("Organization", id, None).raw("active", "true");
        register.push(draft.list("type", &[hl7("organization-type", kind.0, kind.1)]).text("name", name));
    }
    for (id, name) in [CLINIC, WARD] {
        let draft = Draft::early("Location", id, None).text("status", "active").text("name", name);
        register.push(draft.raw("managingOrganization", reference("Organization", HOSPITAL.0, HOSPITAL.1)));
    }
    for (id, family, given, speciality) in PRACTITIONERS {
        let name = Object::new().text("use", "usual").text("text", &format!("{family}, {given}"));
        let name = name.text("family", family).list("given", &[super::json::quoted(given)]).done();
        let qualification = Object::new().raw("code", Object::new().text("text", speciality).done()).done();
        let draft = Draft::early("Practitioner", id, None).raw("active", "true").list("name", &[name]);
        register.push(draft.list("qualification", &[qualification]));
    }
}

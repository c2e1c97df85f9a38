//! What can be diagnosed, prescribed, injected and done, with the codes of the public terminologies.

pub(super) const LOINC: &str = "http://loinc.org";
pub(super) const SNOMED: &str = "http://snomed.info/sct";
pub(super) const RXNORM: &str = "http://www.nlm.nih.gov/research/umls/rxnorm";
pub(super) const CVX: &str = "http://hl7.org/fhir/sid/cvx";
pub(super) const ICD10: &str = "http://hl7.org/fhir/sid/icd-10-cm";
/// Where the tenant keeps its own codes; the tenant does not exist.
pub(super) const TENANT: &str = "https://fhir.cerner.com/0f3c1d52-8a6e-4c7b-9d11-5a2b7e640c9d";

/// A code of a public terminology.
pub(super) struct Term {
    pub(super) system: &'static str,
    pub(super) code: &'static str,
    pub(super) display: &'static str,
}

const fn term(system: &'static str, code: &'static str, display: &'static str) -> Term {
    Term { system, code, display }
}
pub(super) const fn snomed(code: &'static str, display: &'static str) -> Term {
    term(SNOMED, code, display)
}
pub(super) const fn loinc(code: &'static str, display: &'static str) -> Term {
    term(LOINC, code, display)
}

/// A diagnosis in the two terminologies a chart has it in.
pub(super) struct Problem {
    pub(super) term: Term,
    pub(super) icd10: &'static str,
}
const fn problem(code: &'static str, icd10: &'static str, display: &'static str) -> Problem {
    Problem { term: snomed(code, display), icd10 }
}

pub(super) const DIABETES: Problem = problem("44054006", "E11.9", "Type 2 diabetes mellitus");
pub(super) const HYPERTENSION: Problem = problem("59621000", "I10", "Essential hypertension");
pub(super) const HYPERLIPIDEMIA: Problem = problem("55822004", "E78.5", "Hyperlipidemia");
pub(super) const HEART_FAILURE: Problem = problem("84114007", "I50.9", "Heart failure");
pub(super) const ATRIAL_FIBRILLATION: Problem = problem("49436004", "I48.91", "Atrial fibrillation");
pub(super) const KIDNEY_DISEASE: Problem = problem("433144002", "N18.30", "Chronic kidney disease stage 3");
pub(super) const ASTHMA: Problem = problem("195967001", "J45.909", "Asthma");
pub(super) const ECZEMA: Problem = problem("43116000", "L30.9", "Eczema");
pub(super) const OTITIS_MEDIA: Problem = problem("65363002", "H66.90", "Otitis media");
pub(super) const COLD: Problem = problem("54150009", "J06.9", "Upper respiratory infection");
pub(super) const PREGNANCY: Problem = problem("77386006", "Z33.1", "Pregnancy");
pub(super) const GESTATIONAL_DIABETES: Problem =
    problem("11687002", "O24.410", "Gestational diabetes mellitus");
pub(super) const DEPRESSION: Problem = problem("35489007", "F32.A", "Depressive disorder");
pub(super) const DEMENTIA: Problem = problem("52448006", "F03.90", "Dementia");
pub(super) const ARTHRITIS: Problem = problem("396275006", "M19.90", "Osteoarthritis");
pub(super) const ANEMIA: Problem = problem("271737000", "D64.9", "Anemia");
pub(super) const SPRAIN: Problem = problem("44465007", "S93.409A", "Sprain of ankle");
pub(super) const BACK_PAIN: Problem = problem("279039007", "M54.50", "Low back pain");
pub(super) const MIGRAINE: Problem = problem("37796009", "G43.909", "Migraine");
pub(super) const FOOD_INSECURITY: Problem = problem("733423003", "Z59.41", "Food insecurity");

/// A medicine; its `RxNorm` code is empty for what only the tenant knows.
pub(super) struct Medicine {
    pub(super) term: Term,
    pub(super) dosage: &'static str,
}
const fn medicine(code: &'static str, display: &'static str, dosage: &'static str) -> Medicine {
    Medicine { term: term(RXNORM, code, display), dosage }
}

const DAILY: &str = "1 tab, Oral, Daily";
const TWICE: &str = "1 tab, Oral, BID";
pub(super) const METFORMIN: Medicine =
    medicine("860975", "24 HR Metformin hydrochloride 500 MG Extended Release Oral Tablet", TWICE);
pub(super) const INSULIN: Medicine = medicine(
    "311041",
    "Insulin glargine 100 UNT/ML Injectable Solution",
    "10 units, Subcutaneous, At bedtime",
);
pub(super) const LISINOPRIL: Medicine = medicine("314076", "Lisinopril 10 MG Oral Tablet", DAILY);
pub(super) const AMLODIPINE: Medicine = medicine("197361", "Amlodipine 5 MG Oral Tablet", DAILY);
pub(super) const STATIN: Medicine = medicine("312961", "Simvastatin 20 MG Oral Tablet", DAILY);
pub(super) const FUROSEMIDE: Medicine = medicine("313988", "Furosemide 40 MG Oral Tablet", DAILY);
pub(super) const CARVEDILOL: Medicine = medicine("200031", "Carvedilol 6.25 MG Oral Tablet", TWICE);
pub(super) const SPIRONOLACTONE: Medicine = medicine("313096", "Spironolactone 25 MG Oral Tablet", DAILY);
pub(super) const WARFARIN: Medicine = medicine("855332", "Warfarin Sodium 5 MG Oral Tablet", DAILY);
pub(super) const APIXABAN: Medicine = medicine("1364445", "Apixaban 5 MG Oral Tablet", TWICE);
pub(super) const DIGOXIN: Medicine = medicine("197604", "Digoxin 0.125 MG Oral Tablet", DAILY);
pub(super) const ASPIRIN: Medicine = medicine("243670", "Aspirin 81 MG Oral Tablet", DAILY);
pub(super) const IRON: Medicine = medicine("310325", "Ferrous sulfate 325 MG Oral Tablet", DAILY);
pub(super) const DONEPEZIL: Medicine = medicine("997223", "Donepezil hydrochloride 10 MG Oral Tablet", DAILY);
pub(super) const SERTRALINE: Medicine = medicine("312941", "Sertraline 50 MG Oral Tablet", DAILY);
pub(super) const ACETAMINOPHEN: Medicine = medicine(
    "313782",
    "Acetaminophen 325 MG Oral Tablet",
    "650 mg = 2 tab, Oral, q6hr, PRN: as needed for pain",
);
pub(super) const IBUPROFEN: Medicine =
    medicine("310965", "Ibuprofen 200 MG Oral Tablet", "400 mg = 2 tab, Oral, q8hr, PRN: as needed for pain");
pub(super) const AMOXICILLIN: Medicine =
    medicine("308189", "Amoxicillin 80 MG/ML Oral Suspension", "5 mL, Oral, BID, 10 days");
pub(super) const ALBUTEROL: Medicine = medicine(
    "2123111",
    "NDA020503 200 ACTUAT Albuterol 0.09 MG/ACTUAT Metered Dose Inhaler",
    "2 puffs, Inhale, q4hr, PRN: wheezing",
);
pub(super) const FLUTICASONE: Medicine = medicine(
    "895994",
    "120 ACTUAT Fluticasone propionate 0.044 MG/ACTUAT Metered Dose Inhaler",
    "2 puffs, Inhale, BID",
);
pub(super) const EPINEPHRINE: Medicine = medicine(
    "1870230",
    "NDA020800 0.3 ML Epinephrine 1 MG/ML Auto-Injector",
    "0.3 mg, IM, Once, PRN: anaphylaxis",
);
pub(super) const PRENATAL_VITAMIN: Medicine = medicine("", "prenatal multivitamin with minerals", DAILY);

const fn vaccine(code: &'static str, display: &'static str) -> Term {
    term(CVX, code, display)
}
pub(super) const HEP_B: Term = vaccine("08", "Hep B, adolescent or pediatric");
pub(super) const ROTAVIRUS: Term = vaccine("119", "rotavirus, monovalent");
pub(super) const DTAP: Term = vaccine("20", "DTaP");
pub(super) const HIB: Term = vaccine("49", "Hib (PRP-OMP)");
pub(super) const POLIO: Term = vaccine("10", "IPV");
pub(super) const PNEUMO_13: Term = vaccine("133", "Pneumococcal conjugate PCV 13");
pub(super) const PNEUMO_23: Term = vaccine("33", "pneumococcal polysaccharide vaccine, 23 valent");
pub(super) const MMR: Term = vaccine("03", "MMR");
pub(super) const VARICELLA: Term = vaccine("21", "varicella");
pub(super) const HEP_A: Term = vaccine("83", "Hep A, ped/adol, 2 dose");
pub(super) const FLU: Term = vaccine("140", "Influenza, seasonal, injectable, preservative free");
pub(super) const TDAP: Term = vaccine("115", "Tdap");
pub(super) const COVID: Term = vaccine(
    "207",
    "SARS-COV-2 (COVID-19) vaccine, mRNA, spike protein, LNP, preservative free, 100 mcg/0.5mL dose",
);
pub(super) const ZOSTER: Term = vaccine("187", "zoster recombinant");

/// What a person does not tolerate.
pub(super) struct Allergen {
    pub(super) term: Term,
    /// `food`, `medication`, `environment` or `biologic`.
    pub(super) category: &'static str,
    pub(super) criticality: &'static str,
    pub(super) reaction: Term,
}
const fn allergen(term: Term, category: &'static str, criticality: &'static str, reaction: Term) -> Allergen {
    Allergen { term, category, criticality, reaction }
}
pub(super) const PEANUT: Allergen =
    allergen(snomed("762952008", "Peanut"), "food", "high", snomed("39579001", "Anaphylaxis"));
pub(super) const EGG: Allergen =
    allergen(snomed("102263004", "Eggs (edible)"), "food", "low", snomed("271807003", "Eruption of skin"));
pub(super) const LATEX: Allergen =
    allergen(snomed("111088007", "Latex"), "environment", "low", snomed("247472004", "Wheal"));
pub(super) const BEE_VENOM: Allergen =
    allergen(snomed("288328004", "Bee venom"), "biologic", "high", snomed("39579001", "Anaphylaxis"));
pub(super) const SULFA: Allergen = allergen(
    term(RXNORM, "10831", "Sulfamethoxazole / Trimethoprim"),
    "medication",
    "low",
    snomed("271807003", "Eruption of skin"),
);

pub(super) const APPENDECTOMY: Term = snomed("80146002", "Appendectomy");
pub(super) const ECG: Term = snomed("29303009", "Electrocardiographic procedure");
pub(super) const ECHO: Term = snomed("40701008", "Echocardiography");
pub(super) const COLONOSCOPY: Term = snomed("73761001", "Colonoscopy");
pub(super) const DELIVERY: Term = snomed("177184002", "Normal delivery procedure");
pub(super) const OBSTETRIC_ULTRASOUND: Term = snomed("268445003", "Ultrasound scan - obstetric");
pub(super) const SPIROMETRY: Term = snomed("127783003", "Spirometry");
pub(super) const PACEMAKER_INSERTION: Term = snomed("307280005", "Implantation of cardiac pacemaker");
pub(super) const FOOT_EXAM: Term = snomed("401191002", "Diabetic foot examination");
pub(super) const CHEST_XRAY: Term = snomed("399208008", "Plain X-ray of chest");
pub(super) const RECONCILIATION: Term = snomed("430193006", "Medication reconciliation");
pub(super) const DEPRESSION_SCREENING: Term = snomed("171207006", "Depression screening");
pub(super) const PACEMAKER: Term = snomed("14106009", "Cardiac pacemaker");

pub(super) const XRAY_REPORT: Term = loinc("36643-5", "XR Chest 2 Views");
pub(super) const ECG_REPORT: Term = loinc("11524-6", "EKG study");
pub(super) const ANKLE_XRAY: Term = snomed("19490002", "Plain X-ray of ankle");
pub(super) const ANKLE_REPORT: Term = loinc("24540-7", "XR Ankle 2 Views");
pub(super) const ULTRASOUND_REPORT: Term = loinc("11525-3", "US Pelvis Fetus for pregnancy");
pub(super) const ECHO_REPORT: Term = loinc("34552-0", "Cardiac 2D echo study");

/// A kind of document and the forms it is stored in.
pub(super) struct Paper {
    pub(super) term: Term,
    pub(super) forms: &'static [Form],
}
/// One stored form of a document: the prefix of its Binary's id says which.
pub(super) enum Form {
    /// `XR-`, application/pdf.
    Pdf,
    /// `TR-`, text/html.
    Html,
    /// `R-`, text/plain.
    Plain,
}
pub(super) const PROGRESS_NOTE: Paper =
    Paper { term: loinc("11506-3", "Progress note"), forms: &[Form::Html, Form::Plain] };
pub(super) const DISCHARGE_SUMMARY: Paper =
    Paper { term: loinc("18842-5", "Discharge summary"), forms: &[Form::Pdf, Form::Html, Form::Plain] };
pub(super) const CONSULT_NOTE: Paper =
    Paper { term: loinc("11488-4", "Consultation note"), forms: &[Form::Pdf] };

/// A kind of visit.
pub(super) struct VisitKind {
    /// `AMB`, `EMER`, `IMP` or `VR`, with its display.
    pub(super) class: (&'static str, &'static str),
    pub(super) term: Term,
    pub(super) minutes: u64,
    /// Registered but never closed: such a visit has no `period`.
    pub(super) open: bool,
}
const fn visit_kind(class: (&'static str, &'static str), term: Term, minutes: u64) -> VisitKind {
    VisitKind { class, term, minutes, open: false }
}
const OFFICE: (&str, &str) = ("AMB", "ambulatory");
const WARD: (&str, &str) = ("IMP", "inpatient encounter");
pub(super) const CHECKUP: VisitKind = visit_kind(OFFICE, snomed("185349003", "Encounter for check up"), 30);
pub(super) const WELL_CHILD: VisitKind = visit_kind(OFFICE, snomed("410620009", "Well child visit"), 25);
pub(super) const SICK_VISIT: VisitKind = visit_kind(OFFICE, snomed("185345009", "Encounter for symptom"), 20);
pub(super) const FOLLOW_UP: VisitKind = visit_kind(OFFICE, snomed("390906007", "Follow-up encounter"), 20);
pub(super) const PRENATAL: VisitKind = visit_kind(OFFICE, snomed("424619006", "Prenatal visit"), 40);
pub(super) const EMERGENCY: VisitKind =
    visit_kind(("EMER", "emergency"), snomed("50849002", "Emergency room admission"), 310);
pub(super) const INPATIENT: VisitKind = visit_kind(WARD, snomed("32485007", "Hospital admission"), 4_400);
pub(super) const VIRTUAL: VisitKind =
    visit_kind(("VR", "virtual"), snomed("448337001", "Telemedicine consultation with patient"), 15);
pub(super) const REGISTERED: VisitKind =
    VisitKind { class: OFFICE, term: snomed("185349003", "Encounter for check up"), minutes: 0, open: true };

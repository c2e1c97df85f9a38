//! What can be measured: vital signs, laboratory tests and scores, with LOINC codes, UCUM units and usual ranges.

use super::codes::{Term, loinc, snomed};

/// Which kind of Observation it makes; the vendor's ids and categories follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    VitalSign,
    Laboratory,
    SocialHistory,
    Survey,
}

impl Kind {
    /// Category code, its display and the prefix of the ids.
    pub(super) const fn naming(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::VitalSign => ("vital-signs", "Vital Signs", "VS"),
            Self::Laboratory => ("laboratory", "Laboratory", "L"),
            Self::SocialHistory => ("social-history", "Social History", "SH"),
            Self::Survey => ("survey", "Survey", "SH"),
        }
    }
}

/// Something measured as a number.
pub(super) struct Measure {
    pub(super) kind: Kind,
    pub(super) term: Term,
    pub(super) unit: &'static str,
    /// Decimals of a reported value.
    pub(super) decimals: usize,
    /// The usual range, in units of the last decimal.
    pub(super) low: u64,
    pub(super) high: u64,
}

const fn measure(kind: Kind, term: Term, unit: &'static str, scale: (usize, u64, u64)) -> Measure {
    Measure { kind, term, unit, decimals: scale.0, low: scale.1, high: scale.2 }
}
const fn vital(
    code: &'static str,
    display: &'static str,
    unit: &'static str,
    scale: (usize, u64, u64),
) -> Measure {
    measure(Kind::VitalSign, loinc(code, display), unit, scale)
}
const fn lab(
    code: &'static str,
    display: &'static str,
    unit: &'static str,
    scale: (usize, u64, u64),
) -> Measure {
    measure(Kind::Laboratory, loinc(code, display), unit, scale)
}

pub(super) const BLOOD_PRESSURE: Term = loinc("85354-9", "Blood pressure panel with all children optional");
pub(super) const SYSTOLIC: Measure = vital("8480-6", "Systolic blood pressure", "mm[Hg]", (0, 95, 129));
pub(super) const DIASTOLIC: Measure = vital("8462-4", "Diastolic blood pressure", "mm[Hg]", (0, 60, 79));
pub(super) const PULSE: Measure = vital("8867-4", "Heart rate", "/min", (0, 60, 100));
pub(super) const INFANT_PULSE: Measure = vital("8867-4", "Heart rate", "/min", (0, 95, 150));
pub(super) const INFANT_BREATHING: Measure = vital("9279-1", "Respiratory rate", "/min", (0, 22, 40));
pub(super) const BREATHING: Measure = vital("9279-1", "Respiratory rate", "/min", (0, 12, 20));
pub(super) const TEMPERATURE: Measure = vital("8310-5", "Body temperature", "Cel", (1, 364, 374));
pub(super) const OXYGEN: Measure =
    vital("59408-5", "Oxygen saturation in Arterial blood by Pulse oximetry", "%", (0, 95, 100));
pub(super) const WEIGHT: Measure = vital("29463-7", "Body weight", "kg", (2, 5_000, 9_500));
pub(super) const HEIGHT: Measure = vital("8302-2", "Body height", "cm", (1, 1_550, 1_900));
pub(super) const BMI: Measure = vital("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", (1, 185, 249));
pub(super) const HEAD: Measure = vital("9843-4", "Head Occipital-frontal circumference", "cm", (1, 350, 480));
pub(super) const FETAL_HEART: Measure = vital("55283-6", "Fetal Heart rate", "/min", (0, 120, 160));

pub(super) const A1C: Measure = lab("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", (1, 40, 56));
pub(super) const GLUCOSE: Measure =
    lab("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", (2, 7_000, 9_900));
pub(super) const CREATININE: Measure =
    lab("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", (2, 60, 130));
pub(super) const TSH: Measure =
    lab("3016-3", "Thyrotropin [Units/volume] in Serum or Plasma", "u[IU]/mL", (2, 40, 450));
pub(super) const BNP: Measure = lab("33762-6", "NT-proBNP", "pg/mL", (0, 5, 450));
pub(super) const INR: Measure =
    lab("6301-6", "INR in Platelet poor plasma by Coagulation assay", "{INR}", (1, 9, 11));
pub(super) const PEAK_FLOW: Measure = measure(
    Kind::VitalSign,
    loinc("19935-6", "Maximum expiratory gas flow Respiratory system airway by Peak flow meter"),
    "L/min",
    (0, 300, 420),
);
pub(super) const PHQ9: Measure = measure(
    Kind::Survey,
    loinc("44261-6", "Patient Health Questionnaire 9 item (PHQ-9) total score [Reported]"),
    "{score}",
    (0, 0, 4),
);

/// Tests ordered and reported together.
pub(super) struct Panel {
    pub(super) term: Term,
    pub(super) members: &'static [Measure],
}
pub(super) const A1C_TEST: Panel =
    Panel { term: loinc("4548-4", "Hemoglobin A1c"), members: &[A1C, GLUCOSE] };
pub(super) const TSH_TEST: Panel = Panel { term: loinc("3016-3", "Thyrotropin"), members: &[TSH] };
pub(super) const BNP_TEST: Panel = Panel { term: loinc("33762-6", "NT-proBNP"), members: &[BNP] };
pub(super) const INR_TEST: Panel = Panel { term: loinc("6301-6", "INR"), members: &[INR] };
pub(super) const METABOLIC: Panel = Panel {
    term: loinc("51990-0", "Basic metabolic panel - Blood"),
    members: &[
        CREATININE,
        GLUCOSE,
        lab("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", (0, 136, 145)),
        lab("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", (1, 35, 51)),
        lab("2075-0", "Chloride [Moles/volume] in Serum or Plasma", "mmol/L", (0, 98, 107)),
        lab("2028-9", "Carbon dioxide, total [Moles/volume] in Serum or Plasma", "mmol/L", (0, 22, 29)),
        lab("17861-6", "Calcium [Mass/volume] in Serum or Plasma", "mg/dL", (1, 86, 102)),
        lab("3094-0", "Urea nitrogen [Mass/volume] in Serum or Plasma", "mg/dL", (0, 7, 20)),
    ],
};
pub(super) const LIPIDS: Panel = Panel {
    term: loinc("57698-3", "Lipid panel with direct LDL - Serum or Plasma"),
    members: &[
        lab("2093-3", "Cholesterol [Mass/volume] in Serum or Plasma", "mg/dL", (0, 125, 200)),
        lab("2571-8", "Triglyceride [Mass/volume] in Serum or Plasma", "mg/dL", (0, 50, 150)),
        lab(
            "18262-6",
            "Cholesterol in LDL [Mass/volume] in Serum or Plasma by Direct assay",
            "mg/dL",
            (0, 60, 100),
        ),
        lab("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL", (0, 40, 60)),
    ],
};
pub(super) const BLOOD_COUNT: Panel = Panel {
    term: loinc("58410-2", "CBC panel - Blood by Automated count"),
    members: &[
        lab("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", (1, 120, 160)),
        lab("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", (1, 40, 110)),
        lab("4544-3", "Hematocrit [Volume Fraction] of Blood by Automated count", "%", (1, 360, 480)),
        lab("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", (0, 150, 400)),
    ],
};

/// What is answered with a code: the question.
pub(super) struct Question {
    pub(super) kind: Kind,
    pub(super) term: Term,
}
pub(super) const SMOKING: Question =
    Question { kind: Kind::SocialHistory, term: loinc("72166-2", "Tobacco smoking status") };
pub(super) const PREGNANCY_STATUS: Question =
    Question { kind: Kind::SocialHistory, term: loinc("82810-3", "Pregnancy status") };
pub(super) const FOOD_RISK: Question = Question {
    kind: Kind::Survey,
    term: loinc("88122-7", "Worried food would run out before money to buy more"),
};
pub(super) const BLOOD_GROUP: Question =
    Question { kind: Kind::Laboratory, term: loinc("883-9", "ABO group [Type] in Blood") };
pub(super) const VIRUS_TEST: Question = Question {
    kind: Kind::Laboratory,
    term: loinc("94500-6", "SARS-CoV-2 (COVID-19) RNA [Presence] by NAA"),
};

pub(super) const NEVER_SMOKED: Term = snomed("266919005", "Never smoked tobacco");
pub(super) const EX_SMOKER: Term = snomed("8517006", "Ex-smoker");
pub(super) const SMOKES_DAILY: Term = snomed("449868002", "Smokes tobacco daily");
pub(super) const PREGNANT: Term = snomed("77386006", "Pregnant");
pub(super) const GROUP_A: Term = snomed("112144000", "Blood group A");
pub(super) const NOT_DETECTED: Term = snomed("260415000", "Not detected");
pub(super) const OFTEN_TRUE: Term = loinc("LA28397-0", "Often true");

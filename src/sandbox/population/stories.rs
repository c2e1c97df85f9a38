//! Seven invented people with short or ordinary records, told visit by visit.

use super::chart::{Profile, profile};
use super::visits::Entry::{
    Allergy, Answered, CarePlan, CareTeam, Coverage, Diagnosis, Document, Done, Goal, Measured, Ordered,
    Past, Pictured, Prescribed, Problem, Refused, Related, Takes, Tested, Took, Unknown, Vaccines, Vitals,
    Voided,
};
use super::visits::{Visit, visit};
#[allow(
    clippy::wildcard_imports,
    reason = "a story is told in the words of the tables; silent in test builds"
)]
use super::{codes::*, measures::*};

/// Milo: a healthy child. Ines: a pregnancy. Aiko: asthma and allergies. Nell: almost nothing. Then the names that
/// break things, and a record merged from two, with holes.
pub(super) static PEOPLE: &[Profile] = &[
    profile("7300104", &["Milo"], "Testling", ("male", "2021-02-08"), CHILD),
    profile("7300105", &["Ines", "R"], "Demoford", ("female", "1993-07-19"), PREGNANT_WOMAN),
    profile("7300106", &["Aiko"], "Fauxley", ("female", "2009-11-30"), ALLERGIC_GIRL),
    profile(
        "7300107",
        &["Nell"],
        "Blankenfield",
        ("unknown", "1984-01-01"),
        &[visit("2025-10-06T13:00", &REGISTERED, &[])],
    ),
    Profile {
        also: Some("試験 ゾエ 🦊"),
        ..profile(
            "7300108",
            &["Zoë", "Błażena"],
            "Prøvensen-Tēstová",
            ("female", "1979-03-03"),
            FAR_TRAVELLER,
        )
    },
    profile(
        "7300109",
        &["Maximiliana", "Theodora", "Wilhelmina", "Konstantina", "Philippa-Alexandrina", "O'Sample"],
        "von und zu Langenbeispielshausen-Overlongford-Verylengthington de la Prueba y Muestra",
        ("other", "1990-12-31"),
        LONG_NAME,
    ),
    Profile {
        replaces: Some("7300910"),
        sparse: true,
        ..profile("7300110", &["Pat"], "Placeholder", ("male", "1962-06-15"), MERGED)
    },
];

const CHILD: &[Visit] = &[
    visit(
        "2021-02-08T06:10",
        &INPATIENT,
        &[Vitals("", "3.50", "50.5"), Measured(&HEAD, "35.0"), Vaccines(&[&HEP_B]), Coverage],
    ),
    visit(
        "2021-04-12T14:00",
        &WELL_CHILD,
        &[
            Vitals("", "5.60", "58.0"),
            Measured(&HEAD, "39.1"),
            Vaccines(&[&DTAP, &HIB, &POLIO, &PNEUMO_13, &ROTAVIRUS, &HEP_B]),
            Related(("MTH", "mother"), ("Mara", "Testling")),
        ],
    ),
    visit(
        "2021-08-16T14:30",
        &WELL_CHILD,
        &[Vitals("", "7.90", "67.5"), Measured(&HEAD, "43.0"), Vaccines(&[&DTAP, &POLIO, &PNEUMO_13])],
    ),
    visit(
        "2022-03-14T09:15",
        &WELL_CHILD,
        &[
            Vitals("", "10.10", "76.0"),
            Measured(&HEAD, "46.2"),
            Vaccines(&[&MMR, &VARICELLA, &HEP_A]),
            Tested(&BLOOD_COUNT, &["11.0"]),
        ],
    ),
    visit(
        "2023-01-23T16:40",
        &SICK_VISIT,
        &[
            Past(&OTITIS_MEDIA, "2023-02-03"),
            Measured(&TEMPERATURE, "39.0"),
            Prescribed(&AMOXICILLIN, &OTITIS_MEDIA),
        ],
    ),
    visit("2023-10-09T15:00", &WELL_CHILD, &[Vitals("", "13.40", "92.0"), Vaccines(&[&HEP_A, &FLU])]),
    visit(
        "2025-03-17T15:00",
        &WELL_CHILD,
        &[
            Vitals("92/54", "16.20", "103.5"),
            Vaccines(&[&DTAP, &POLIO, &MMR, &VARICELLA]),
            Document(&PROGRESS_NOTE, "Healthy four-year-old, growing along the 50th percentile."),
        ],
    ),
];

const PREGNANT_WOMAN: &[Visit] = &[
    visit(
        "2024-05-13T15:30",
        &CHECKUP,
        &[
            Vitals("112/70", "61.00", "166.0"),
            Answered(&SMOKING, &NEVER_SMOKED),
            Coverage,
            Tested(&TSH_TEST, &["1.10"]),
        ],
    ),
    visit(
        "2025-01-20T15:00",
        &PRENATAL,
        &[
            Problem(&PREGNANCY),
            Answered(&PREGNANCY_STATUS, &PREGNANT),
            Answered(&BLOOD_GROUP, &GROUP_A),
            Vitals("110/68", "62.40", ""),
            Tested(&BLOOD_COUNT, &["12.0"]),
            Takes(&PRENATAL_VITAMIN, &PREGNANCY),
            CareTeam,
            Goal("Gain no more than 12 kg"),
            CarePlan("Prenatal care plan"),
        ],
    ),
    visit(
        "2025-03-17T15:00",
        &PRENATAL,
        &[
            Vitals("114/70", "65.10", ""),
            Measured(&FETAL_HEART, "148"),
            Pictured(
                &OBSTETRIC_ULTRASOUND,
                &ULTRASOUND_REPORT,
                "Single live fetus of 20 weeks, usual anatomy.",
            ),
        ],
    ),
    visit(
        "2025-05-12T15:00",
        &PRENATAL,
        &[
            Vitals("118/74", "68.90", ""),
            Measured(&FETAL_HEART, "144"),
            Problem(&GESTATIONAL_DIABETES),
            Tested(&A1C_TEST, &["5.9", "120.00"]),
            Vaccines(&[&TDAP]),
            Document(&CONSULT_NOTE, "Nutrition advice given; glucose to be measured four times a day."),
        ],
    ),
    visit(
        "2025-06-30T15:00",
        &PRENATAL,
        &[
            Vitals("122/78", "71.20", ""),
            Measured(&FETAL_HEART, "139"),
            Tested(&BLOOD_COUNT, &["10.5"]),
            Problem(&ANEMIA),
            Takes(&IRON, &ANEMIA),
        ],
    ),
    visit(
        "2025-08-11T02:20",
        &INPATIENT,
        &[
            Vitals("126/80", "73.00", ""),
            Done(&DELIVERY),
            Prescribed(&IBUPROFEN, &PREGNANCY),
            Document(
                &DISCHARGE_SUMMARY,
                "Healthy girl of 3410 g, Apgar 9/10. Mother and child went home on day 2.",
            ),
        ],
    ),
    visit("2025-09-22T14:00", &VIRTUAL, &[Measured(&PHQ9, "3"), Ordered(&DEPRESSION_SCREENING)]),
];

const ALLERGIC_GIRL: &[Visit] = &[
    visit(
        "2014-04-07T14:00",
        &WELL_CHILD,
        &[Problem(&ECZEMA), Allergy(&PEANUT), Allergy(&EGG), Vaccines(&[&FLU])],
    ),
    visit(
        "2016-10-03T14:00",
        &SICK_VISIT,
        &[
            Problem(&ASTHMA),
            Vitals("98/60", "24.00", "121.5"),
            Measured(&OXYGEN, "93"),
            Done(&SPIROMETRY),
            Takes(&ALBUTEROL, &ASTHMA),
            Takes(&FLUTICASONE, &ASTHMA),
            Takes(&EPINEPHRINE, &ASTHMA),
        ],
    ),
    visit(
        "2019-05-18T21:05",
        &EMERGENCY,
        &[
            Diagnosis(&ASTHMA),
            Measured(&OXYGEN, "90"),
            Measured(&PULSE, "132"),
            Measured(&PEAK_FLOW, "180"),
            Prescribed(&ALBUTEROL, &ASTHMA),
            Pictured(&CHEST_XRAY, &XRAY_REPORT, "Hyperinflation, no focal consolidation."),
            Document(
                &PROGRESS_NOTE,
                "Better after three nebulizers; FEV1 < 60 % & rising. Home with mother.",
            ),
        ],
    ),
    visit(
        "2022-09-12T15:00",
        &FOLLOW_UP,
        &[
            Vitals("106/64", "47.50", "156.0"),
            Measured(&PEAK_FLOW, "340"),
            Allergy(&BEE_VENOM),
            Vaccines(&[&FLU, &TDAP]),
            Goal("No night-time symptoms for a month"),
            CareTeam,
            CarePlan("Asthma action plan"),
        ],
    ),
    visit(
        "2025-09-08T15:00",
        &FOLLOW_UP,
        &[
            Vitals("110/66", "54.00", "163.5"),
            Measured(&PEAK_FLOW, "395"),
            Tested(&BLOOD_COUNT, &[]),
            Vaccines(&[&FLU]),
        ],
    ),
];

const FAR_TRAVELLER: &[Visit] = &[
    visit(
        "2022-02-14T10:00",
        &CHECKUP,
        &[
            Vitals("121/77", "70.00", "171.0"),
            Answered(&SMOKING, &EX_SMOKER),
            Problem(&MIGRAINE),
            Tested(&LIPIDS, &[]),
        ],
    ),
    visit(
        "2023-06-05T10:00",
        &SICK_VISIT,
        &[
            Diagnosis(&COLD),
            Answered(&VIRUS_TEST, &NOT_DETECTED),
            Measured(&TEMPERATURE, "38.0"),
            Document(
                &PROGRESS_NOTE,
                "Spricht Deutsch, čeština & 日本語. Fever of 38 °C, throat red, lungs clear.",
            ),
        ],
    ),
    visit(
        "2024-06-10T10:00",
        &CHECKUP,
        &[
            Vitals("119/75", "69.50", ""),
            Problem(&DEPRESSION),
            Measured(&PHQ9, "11"),
            Takes(&SERTRALINE, &DEPRESSION),
        ],
    ),
    visit(
        "2025-06-09T10:00",
        &FOLLOW_UP,
        &[
            Vitals("118/76", "69.00", ""),
            Measured(&PHQ9, "4"),
            Tested(&METABOLIC, &["0.50"]),
            Vaccines(&[&FLU, &COVID]),
        ],
    ),
];

const LONG_NAME: &[Visit] = &[
    visit(
        "2021-07-05T08:00",
        &CHECKUP,
        &[
            Vitals("131/84", "88.00", "179.5"),
            Answered(&SMOKING, &SMOKES_DAILY),
            Coverage,
            Tested(&LIPIDS, &["212"]),
        ],
    ),
    visit(
        "2023-03-11T19:30",
        &EMERGENCY,
        &[
            Diagnosis(&SPRAIN),
            Prescribed(&IBUPROFEN, &SPRAIN),
            Pictured(&ANKLE_XRAY, &ANKLE_REPORT, "No fracture."),
            Allergy(&LATEX),
        ],
    ),
    visit(
        "2025-02-03T08:30",
        &CHECKUP,
        &[
            Vitals("134/86", "91.50", ""),
            Refused(&FLU),
            Past(&BACK_PAIN, "2025-03-10"),
            Took(&ACETAMINOPHEN, &BACK_PAIN),
            Tested(&METABOLIC, &[]),
            Tested(&A1C_TEST, &["5.7"]),
            Document(&CONSULT_NOTE, "Advice on smoking; wants to stop after the summer."),
        ],
    ),
];

const MERGED: &[Visit] = &[
    visit(
        "2018-01-15T10:00",
        &CHECKUP,
        &[
            Problem(&HYPERTENSION),
            Unknown(&WEIGHT),
            Unknown(&HEIGHT),
            Allergy(&SULFA),
            Took(&AMLODIPINE, &HYPERTENSION),
        ],
    ),
    visit(
        "2020-05-05T10:00",
        &SICK_VISIT,
        &[Voided(&GLUCOSE), Voided(&PULSE), Unknown(&OXYGEN), Diagnosis(&COLD)],
    ),
    visit(
        "2022-08-22T10:00",
        &CHECKUP,
        &[Vitals("139/88", "", ""), Tested(&METABOLIC, &[]), Unknown(&A1C), Done(&APPENDECTOMY)],
    ),
    visit(
        "2024-09-02T10:00",
        &REGISTERED,
        &[Unknown(&A1C), Takes(&LISINOPRIL, &HYPERTENSION), Vaccines(&[&FLU])],
    ),
];

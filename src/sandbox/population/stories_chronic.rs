//! Three invented people with long records: diabetes, heart failure, and someone cared for by a relative.

use super::chart::{Profile, profile};
use super::visits::Entry::{
    Allergy, Answered, CarePlan, CareTeam, Coverage, Diagnosis, Document, Done, Goal, Measured, Ordered,
    Pacemaker, Past, Pictured, Prescribed, Problem, Related, Takes, Tested, Took, Vaccines, Vitals,
};
use super::visits::{Visit, visit};
#[allow(
    clippy::wildcard_imports,
    reason = "a story is told in the words of the tables; silent in test builds"
)]
use super::{codes::*, measures::*};

/// Walter, who is `patient-1`: an old heart, and all 17 types. Dana: diabetes over seven years. Gus: his daughter
/// speaks for him.
pub(super) static PEOPLE: &[Profile] = &[
    profile("7300101", &["Walter"], "Sandboxer", ("male", "1941-04-27"), OLD_HEART),
    profile("7300102", &["Dana", "Lee"], "Mockwell", ("female", "1968-09-14"), DIABETIC),
    profile("7300103", &["Gus"], "Exampleman", ("male", "1946-10-02"), CARED_FOR),
];

const DIABETIC: &[Visit] = &[
    visit(
        "2018-11-12T14:00",
        &CHECKUP,
        &[
            Vitals("148/92", "96.50", "165.0"),
            Answered(&SMOKING, &EX_SMOKER),
            Problem(&DIABETES),
            Problem(&HYPERTENSION),
            Tested(&A1C_TEST, &["9.2", "214.00"]),
            Tested(&LIPIDS, &["243", "210", "158", "38"]),
            Coverage,
        ],
    ),
    visit(
        "2018-12-03T14:00",
        &FOLLOW_UP,
        &[
            Takes(&METFORMIN, &DIABETES),
            Takes(&LISINOPRIL, &HYPERTENSION),
            Problem(&HYPERLIPIDEMIA),
            Takes(&STATIN, &HYPERLIPIDEMIA),
            CareTeam,
            Goal("HbA1c below 7.0 %"),
            Goal("Lose 8 kg"),
            CarePlan("Diabetes self-management plan"),
        ],
    ),
    visit(
        "2019-06-17T14:00",
        &FOLLOW_UP,
        &[
            Vitals("141/88", "94.00", ""),
            Tested(&A1C_TEST, &["8.4", "171.00"]),
            Tested(&METABOLIC, &["0.90"]),
            Done(&FOOT_EXAM),
        ],
    ),
    visit(
        "2020-09-21T14:00",
        &VIRTUAL,
        &[
            Measured(&WEIGHT, "93.20"),
            Answered(&FOOD_RISK, &OFTEN_TRUE),
            Problem(&FOOD_INSECURITY),
            Measured(&PHQ9, "6"),
        ],
    ),
    visit(
        "2021-09-13T14:00",
        &FOLLOW_UP,
        &[
            Vitals("136/84", "90.50", ""),
            Tested(&A1C_TEST, &["7.6", "140.00"]),
            Tested(&LIPIDS, &["188", "160", "104", "44"]),
            Vaccines(&[&FLU, &COVID, &PNEUMO_23]),
            Done(&FOOT_EXAM),
        ],
    ),
    visit(
        "2023-04-03T14:00",
        &FOLLOW_UP,
        &[
            Vitals("132/82", "89.00", ""),
            Tested(&A1C_TEST, &["7.0", "120.00"]),
            Tested(&METABOLIC, &["1.10"]),
            Done(&COLONOSCOPY),
            Took(&INSULIN, &DIABETES),
        ],
    ),
    visit(
        "2025-05-19T14:00",
        &FOLLOW_UP,
        &[
            Vitals("129/78", "87.50", ""),
            Tested(&A1C_TEST, &["6.8", "118.00"]),
            Tested(&LIPIDS, &[]),
            Vaccines(&[&FLU, &ZOSTER]),
            Document(&PROGRESS_NOTE, "HbA1c at goal for the first time. Continue metformin and lisinopril."),
        ],
    ),
];

const OLD_HEART: &[Visit] = &[
    visit(
        "2015-03-09T09:00",
        &CHECKUP,
        &[
            Vitals("152/94", "84.00", "176.0"),
            Answered(&SMOKING, &EX_SMOKER),
            Problem(&HYPERTENSION),
            Problem(&ATRIAL_FIBRILLATION),
            Past(&BACK_PAIN, "2015-08-01"),
            Takes(&AMLODIPINE, &HYPERTENSION),
            Took(&WARFARIN, &ATRIAL_FIBRILLATION),
            Takes(&ASPIRIN, &HYPERTENSION),
            Allergy(&SULFA),
            Coverage,
            Related(("SPS", "spouse"), ("Edith", "Sandboxer")),
        ],
    ),
    visit("2016-02-15T09:00", &FOLLOW_UP, &[Tested(&INR_TEST, &["2.4"]), Vaccines(&[&PNEUMO_23, &FLU])]),
    visit(
        "2019-01-28T03:40",
        &EMERGENCY,
        &[
            Vitals("168/101", "91.00", ""),
            Measured(&OXYGEN, "87"),
            Diagnosis(&HEART_FAILURE),
            Tested(&BNP_TEST, &["4120"]),
            Pictured(&CHEST_XRAY, &XRAY_REPORT, "Pulmonary edema, enlarged heart, small effusions."),
            Pictured(&ECG, &ECG_REPORT, "Atrial fibrillation, rate 118."),
        ],
    ),
    visit(
        "2019-01-28T09:00",
        &INPATIENT,
        &[
            Problem(&HEART_FAILURE),
            Tested(&METABOLIC, &["1.40"]),
            Pictured(&ECHO, &ECHO_REPORT, "Ejection fraction 35 %, left atrium enlarged."),
            Prescribed(&FUROSEMIDE, &HEART_FAILURE),
            Takes(&CARVEDILOL, &HEART_FAILURE),
            Takes(&SPIRONOLACTONE, &HEART_FAILURE),
            Takes(&DIGOXIN, &ATRIAL_FIBRILLATION),
            Takes(&APIXABAN, &ATRIAL_FIBRILLATION),
            Done(&RECONCILIATION),
            Document(
                &DISCHARGE_SUMMARY,
                "Heart failure with reduced ejection fraction. Lost 6.5 kg of fluid.",
            ),
        ],
    ),
    visit(
        "2019-02-18T09:00",
        &FOLLOW_UP,
        &[
            Vitals("128/76", "83.50", ""),
            CareTeam,
            Goal("Weigh every morning; call when 2 kg heavier"),
            Goal("Less than 2 g of salt a day"),
            CarePlan("Heart failure plan"),
        ],
    ),
    visit(
        "2021-11-08T07:30",
        &INPATIENT,
        &[
            Pacemaker,
            Pictured(&CHEST_XRAY, &XRAY_REPORT, "Leads in place, no pneumothorax."),
            Document(&DISCHARGE_SUMMARY, "Dual-chamber pacemaker for bradycardia. Wound check in ten days."),
        ],
    ),
    visit(
        "2023-10-16T09:00",
        &FOLLOW_UP,
        &[
            Vitals("124/70", "81.20", ""),
            Problem(&KIDNEY_DISEASE),
            Tested(&METABOLIC, &["1.60"]),
            Tested(&BNP_TEST, &["980"]),
            Vaccines(&[&FLU, &COVID]),
        ],
    ),
    visit(
        "2025-04-14T09:00",
        &FOLLOW_UP,
        &[
            Vitals("118/66", "79.80", ""),
            Tested(&METABOLIC, &["1.70"]),
            Tested(&BLOOD_COUNT, &["11.8"]),
            Ordered(&ECHO),
            Document(&CONSULT_NOTE, "Stable in NYHA class II. Pacemaker battery lasts seven more years."),
        ],
    ),
];

const CARED_FOR: &[Visit] = &[
    visit(
        "2020-01-13T11:00",
        &CHECKUP,
        &[
            Vitals("138/80", "74.00", "172.0"),
            Problem(&ARTHRITIS),
            Takes(&ACETAMINOPHEN, &ARTHRITIS),
            Related(("DAUC", "daughter"), ("Cleo", "Exampleman-Proxy")),
            Coverage,
        ],
    ),
    visit(
        "2022-05-09T11:00",
        &FOLLOW_UP,
        &[
            Vitals("134/78", "71.00", ""),
            Problem(&DEMENTIA),
            Tested(&TSH_TEST, &["2.00"]),
            Tested(&BLOOD_COUNT, &[]),
            Takes(&DONEPEZIL, &DEMENTIA),
            CareTeam,
            Goal("Stay at home with day care"),
            CarePlan("Dementia care plan, agreed with the daughter"),
            Document(&CONSULT_NOTE, "Daughter is the health care proxy and speaks for the patient."),
        ],
    ),
    visit(
        "2024-03-18T11:00",
        &VIRTUAL,
        &[Measured(&WEIGHT, "68.50"), Vaccines(&[&FLU]), Done(&RECONCILIATION)],
    ),
    visit(
        "2025-11-03T11:00",
        &FOLLOW_UP,
        &[
            Vitals("130/74", "67.00", ""),
            Tested(&METABOLIC, &["1.20"]),
            Related(("NBOR", "neighbor"), ("Ivo", "Mocker")),
        ],
    ),
];

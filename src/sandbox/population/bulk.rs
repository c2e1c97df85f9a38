//! The patient of a chosen size, for load tests: the mix of a long real chart, not a plausible life.

use std::time::Duration;

use super::chart::{Profile, Register, profile};
use super::codes::{self, Medicine, Problem, Term};
use super::json::decimal;
use super::measures::{self, Measure, Panel};
use crate::clock::Timestamp;

static PROFILE: Profile = profile("7300111", &["Vol"], "Volumetest", ("female", "1955-05-05"), &[]);

/// Shares of the whole in thousandths; the Patient is one, Observations are what is left (about 57 %).
const SHARES: [(&str, usize); 15] = [
    ("Encounter", 90),
    ("Procedure", 90),
    ("DiagnosticReport", 60),
    ("MedicationRequest", 40),
    ("DocumentReference", 25),
    ("ServiceRequest", 60),
    ("Condition", 20),
    ("Immunization", 14),
    ("AllergyIntolerance", 3),
    ("CarePlan", 6),
    ("CareTeam", 4),
    ("Goal", 6),
    ("Device", 4),
    ("Coverage", 3),
    ("RelatedPerson", 3),
];

/// Visits evenly spread from January 2000 on.
const START: Timestamp = Timestamp::from_seconds(946_800_000);
const YEARS: u64 = 26;

const PANELS: [&Panel; 4] =
    [&measures::METABOLIC, &measures::LIPIDS, &measures::BLOOD_COUNT, &measures::A1C_TEST];
const VITALS: [&Measure; 6] = [
    &measures::PULSE,
    &measures::BREATHING,
    &measures::TEMPERATURE,
    &measures::WEIGHT,
    &measures::OXYGEN,
    &measures::HEIGHT,
];
const PROBLEMS: [&Problem; 6] = [
    &codes::DIABETES,
    &codes::HYPERTENSION,
    &codes::BACK_PAIN,
    &codes::COLD,
    &codes::ARTHRITIS,
    &codes::MIGRAINE,
];
const MEDICINES: [&Medicine; 5] =
    [&codes::METFORMIN, &codes::LISINOPRIL, &codes::IBUPROFEN, &codes::STATIN, &codes::ASPIRIN];
const PROCEDURES: [&Term; 5] =
    [&codes::ECG, &codes::FOOT_EXAM, &codes::RECONCILIATION, &codes::COLONOSCOPY, &codes::SPIROMETRY];

/// How many resources of each type; with the Patient they are `size` in all. The Observations come last.
fn quotas(size: usize) -> Vec<(&'static str, usize)> {
    let mut left = size.saturating_sub(1);
    let mut quotas = Vec::new();
    for (resource_type, share) in SHARES {
        // One kept back for the Observation.
        let quota = (size * share / 1_000).max(1).min(left.saturating_sub(1));
        left -= quota;
        quotas.push((resource_type, quota));
    }
    quotas.push(("Observation", left));
    quotas
}

/// Writes the patient with `size` resources of the 17 types.
pub(super) fn write(register: &mut Register, size: usize) {
    let mut chart = register.admit(&PROFILE);
    let mut visits: Vec<(Timestamp, String)> = Vec::new();
    // Per visit: the laboratory results that a report can name.
    let mut results: Vec<Vec<String>> = Vec::new();
    let quotas = quotas(size);
    let observations = quotas.last().copied();
    // Observations directly after the visits, because reports refer to them.
    let order = quotas.iter().take(1).chain(&observations).chain(&quotas[1..quotas.len() - 1]);
    for &(resource_type, quota) in order {
        for item in 0..quota {
            if resource_type == "Encounter" {
                let share = Duration::from_secs(YEARS * 365 * 86_400 / quota as u64 * item as u64);
                chart.visit(START.after(share), &codes::CHECKUP);
                visits.push((chart.now, chart.encounter.clone().unwrap_or_default()));
                results.push(Vec::new());
                continue;
            }
            let position = item * visits.len() / quota;
            if let Some((start, encounter)) = visits.get(position) {
                (chart.now, chart.encounter) = (*start, Some(encounter.clone()));
                chart.tick(item as u64 % 20);
            }
            match resource_type {
                "Observation" => {
                    let panel = PANELS[position % PANELS.len()];
                    let laboratory = item % 3 != 0;
                    let measure = if laboratory {
                        &panel.members[item % panel.members.len()]
                    } else {
                        VITALS[item / 3 % VITALS.len()]
                    };
                    // Now and then outside the usual range.
                    let value = measure.low * 9 / 10
                        + chart.register.below(measure.high * 6 / 5 - measure.low * 9 / 10);
                    let id = chart.observation(measure, &decimal(value, measure.decimals));
                    if let Some(of_visit) = results.get_mut(position).filter(|_| laboratory) {
                        of_visit.push(id);
                    }
                }
                "DiagnosticReport" => {
                    let of_visit = results.get(position).map_or(&[][..], Vec::as_slice);
                    chart.report(&PANELS[position % PANELS.len()].term, None, of_visit);
                }
                "Procedure" => chart.procedure(PROCEDURES[item % PROCEDURES.len()]),
                "MedicationRequest" => {
                    let intent = if item % 12 == 0 { "order" } else { "plan" };
                    let reason = PROBLEMS[item % PROBLEMS.len()];
                    chart.medicine(MEDICINES[item % MEDICINES.len()], intent, "active", reason);
                }
                "DocumentReference" => {
                    chart.document(&codes::PROGRESS_NOTE, "Seen and examined. Nothing new to report.");
                }
                "ServiceRequest" => drop(chart.order(&PANELS[item % PANELS.len()].term)),
                "Condition" => chart.condition(PROBLEMS[item % PROBLEMS.len()], item % 4 == 0, None),
                "Immunization" => chart.vaccine(&codes::FLU, true),
                "AllergyIntolerance" => chart.allergy(&codes::LATEX),
                "CarePlan" => chart.care_plan("Plan of treatment"),
                "CareTeam" => chart.care_team(),
                "Goal" => chart.goal("Walk 30 minutes on five days a week"),
                "Device" => chart.pacemaker_device(),
                "Coverage" => chart.coverage(),
                _ => chart.related(("SIB", "sibling"), ("Vera", "Volumetest")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_any_size_add_up() {
        for size in [1, 2, 5, 16, 17, 18, 100, 999, 10_000] {
            let quotas = quotas(size);
            assert_eq!(quotas.iter().map(|(_, quota)| quota).sum::<usize>() + 1, size);
            assert!(size < 17 || quotas.iter().all(|(_, quota)| *quota > 0), "{size}");
        }
    }
}

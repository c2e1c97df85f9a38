//! What hospital IT has to do so that patients can use a registration there, vendor by vendor. For the activation packet.

/// The steps at the hospitals of one vendor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HospitalSteps {
    /// In their order.
    pub steps: &'static [&'static str],
    /// What else is good to know.
    pub notes: &'static [&'static str],
}

/// For vendors about which nothing more is known.
const USUAL: HospitalSteps = HospitalSteps {
    steps: &[
        "Register or enable the app at your SMART on FHIR authorization server as a confidential app for patients, with the \
         redirect URI, the way of authentication and the scopes on this page.",
        "If the app authenticates with signed assertions (private_key_jwt), enter the JWKS URI. Your server must be able to \
         reach it over the internet.",
        "Allow refresh tokens (offline access), so that patients need not sign in again for each update.",
        "If your server gave the app a client id of its own, send it to us. Send a client secret apart from it, never by \
         plain e-mail.",
        "Tell us that it is done. We check the sign-in from our side.",
    ],
    notes: &[],
};

const ORACLE_HEALTH: HospitalSteps = HospitalSteps {
    steps: &[
        "Check that the FHIR base URL on this page ends with the id of your production tenant, exactly as written: its \
         letters are case-sensitive.",
        "Have the client id on this page activated for that tenant, yourselves or by a request to Oracle Health that names \
         client id and tenant.",
        "Nothing else has to be entered: redirect URI, JWKS URI and scopes belong to the registration at Oracle Health. \
         Compare them with this page.",
        "Tell us that it is done. We check the sign-in from our side.",
    ],
    notes: &[
        "Until it is activated, patients meet the error unauthorized_client \
         (oauth2:grant:unauthorized-client-for-tenant).",
        "A change in the vendor's console can take 15 minutes to arrive, in some cases 12 hours.",
    ],
};

const EPIC: HospitalSteps = HospitalSteps {
    steps: &[
        "Look for the client id on this page among the apps of your environment. Apps for patients that read USCDI data only \
         may have come to you by themselves.",
        "If it is not there, download the app with this client id from Epic, for production with the production id.",
        "Allow its persistent access (refresh tokens), so that patients need not sign in again for each update.",
        "Let your environment reach the JWK Set URL on this page over the internet. No key has to be uploaded.",
        "Tell us that it is done. We check the sign-in from our side.",
    ],
    notes: &[
        "The app has one client id for production and another for test environments: this page names one of them.",
        "A change at Epic can take an hour to reach the sandbox, and 12 hours to reach customers.",
    ],
};

const ECLINICALWORKS: HospitalSteps = HospitalSteps {
    steps: &[
        "Check that patients of your practice can use apps with healow: the authorization server is the vendor's, and one \
         registration serves all practices.",
        "If the sign-in does not offer your practice, ask eClinicalWorks and name the client id on this page.",
    ],
    notes: &["The vendor keeps a list of the JWKS URIs it reads; ours is on this page."],
};

const MEDITECH: HospitalSteps = HospitalSteps {
    steps: &[
        "Register the app at your own MEDITECH API server as a confidential app for patients, with the redirect URI and the \
         scopes on this page.",
        "Send us the client id that your server gave it, if it is another than on this page. Send the client secret apart \
         from it, never by plain e-mail.",
        "Let the internet reach the FHIR base URL on this page, and the authorization server beside it.",
        "Tell us that it is done. We check the sign-in from our side.",
    ],
    notes: &[],
};

/// Where one registration is good at every hospital.
const VENDOR_WIDE: HospitalSteps = HospitalSteps {
    steps: &[
        "Usually nothing: the registration at the vendor is good for all of its customers.",
        "If patients are refused at the sign-in, ask the vendor and name the client id and the FHIR base URL on this page.",
    ],
    notes: &[],
};

/// What hospital IT has to do at the customers of a vendor, by the name of its profile.
pub fn hospital_steps(vendor: &str) -> &'static HospitalSteps {
    match vendor {
        "cerner" | "cerner-provider" => &ORACLE_HEALTH,
        "epic" => &EPIC,
        "eclinicalworks" => &ECLINICALWORKS,
        "meditech" => &MEDITECH,
        "athenahealth" | "nextgen" | "veradigm" | "va" | "bluebutton" => &VENDOR_WIDE,
        _ => &USUAL,
    }
}

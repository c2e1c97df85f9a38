"""fhirpy against the live proxy: base URL, API key, patient id. Prints the ids of all Observations as JSON."""

import json
import sys

from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import OperationOutcome, ResourceNotFound

base, key, patient = sys.argv[1:]
client = SyncFHIRClient(base, authorization=f"Bearer {key}")

assert client.reference("Patient", patient).to_resource()["id"] == patient
assert client.resources("Patient").search(_id=patient).get()["id"] == patient

for kind, wanted in [("Patient", "nobody"), ("Nonsense", "1")]:
    try:
        client.reference(kind, wanted).to_resource()
    except (ResourceNotFound, OperationOutcome):
        pass
    else:
        raise AssertionError(f"{kind}/{wanted} was found")
try:
    client.resources("Condition").search(nonsense="1").fetch()
except OperationOutcome as error:
    assert error.resource["resourceType"] == "OperationOutcome"
else:
    raise AssertionError("a senseless search was answered")

found = client.resources("Observation").search(patient=patient).limit(10).fetch_all()
print(json.dumps([one["id"] for one in found]))

"""From sections to patients: features, microenvironment, response, biomarkers, targets."""

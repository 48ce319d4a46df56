# From sections to patients: features, microenvironment, response, biomarkers, targets.


include: "inputs/cohort.smk"


if COMPARES:

    rule cohort_features:
        input:
            cohort_inputs,
            signatures=shipped("signatures"),
            compartments=shipped("compartments"),
        output:
            features=solid(f"{COHORT_STUDY}/features.parquet"),
            expression=solid(f"{COHORT_STUDY}/expression.parquet"),
            counts=solid(f"{COHORT_STUDY}/counts.parquet"),
            places=solid(f"{COHORT_STUDY}/places.parquet"),
            columns=shown(
                f"{COHORT_STUDY}/columns.tsv",
                "cohort_columns_table",
                "Cohort",
                sample="all",
                item="where features come from",
            ),
            differences=shown(
                f"{COHORT_STUDY}/microenvironment.tsv",
                "cohort_differences_table",
                "Cohort",
                sample="all",
                item="differences between patients",
            ),
            notes=solid(f"{COHORT_STUDY}/notes.json"),
        log:
            logs("cohort/cohort_features"),
        benchmark:
            timings("cohort/cohort_features")
        conda:
            env("cohort")
        threads: 1
        resources:
            mem_mb=memory(2000, 0.2),
            runtime=120,
        params:
            study=study.name,
            files=COHORT_FILES,
            rows={
                sample: {name: row[name] for name in ("patient", "condition", "batch", "clinical")}
                for sample, row in study.samples.items()
            },
            comparable=SPACE["labels"] != "clusters",
            options={
                name: COHORT[name]
                for name in (
                    "response",
                    "positive",
                    "negative",
                    "baseline",
                    "clinical",
                    "group",
                    "bulk",
                    "min_patients",
                )
            },
            seed=study.config["seed"],
            library=library("cohort/cohort_features"),
        message:
            "What is known of each patient"
        script:
            "../scripts/cohort/cohort_features.py"

    rule biomarkers:
        input:
            marker_images,
            features=rules.cohort_features.output.features,
            expression=rules.cohort_features.output.expression,
            counts=rules.cohort_features.output.counts,
            places=rules.cohort_features.output.places,
            differences=rules.cohort_features.output.differences,
            filtered=expand(rules.qc.output.filtered, sample=MARKED),
        output:
            biomarkers=solid(f"{COHORT_STUDY}/biomarkers.parquet"),
            genes=solid(f"{COHORT_STUDY}/genes.parquet"),
            table=shown(
                f"{COHORT_STUDY}/biomarkers.tsv", "biomarkers_table", "Cohort", sample="all", item="biomarkers (table)"
            ),
            figure=shown(
                f"{COHORT_STUDY}/figures/biomarkers.png",
                "biomarkers_figure",
                "Cohort",
                sample="all",
                item="biomarkers",
            ),
            notes=solid(f"{COHORT_STUDY}/biomarkers.json"),
        log:
            logs("cohort/biomarkers"),
        benchmark:
            timings("cohort/biomarkers")
        conda:
            env("cohort")
        threads: 1
        resources:
            mem_mb=memory(2000, 2),
            runtime=120,
        params:
            options={
                name: COHORT[name]
                for name in ("positive", "negative", "baseline", "genes", "predictors", "subsamples", "top")
            },
            samples=MARKED,
            images=lambda wildcards: {s: sample_image(SimpleNamespace(sample=s)) for s in MARKED},
            target_sum=EXPRESSION["features"]["target_sum"],
            seed=study.config["seed"],
            library=library("cohort/biomarkers"),
        message:
            "Markers of the groups of patients"
        script:
            "../scripts/cohort/biomarkers.py"

    rule targets:
        input:
            [COHORT["surface"]] if COHORT["surface"] else [],
            features=rules.cohort_features.output.features,
            places=rules.cohort_features.output.places,
            differences=rules.cohort_features.output.differences,
            genes=rules.biomarkers.output.genes,
        output:
            targets=solid(f"{COHORT_STUDY}/targets.parquet"),
            table=shown(f"{COHORT_STUDY}/targets.tsv", "targets_table", "Cohort", sample="all", item="targets (table)"),
            figure=shown(
                f"{COHORT_STUDY}/figures/targets.png", "targets_figure", "Cohort", sample="all", item="targets"
            ),
            notes=solid(f"{COHORT_STUDY}/targets.json"),
        log:
            logs("cohort/targets"),
        benchmark:
            timings("cohort/targets")
        conda:
            env("cohort")
        threads: 1
        resources:
            mem_mb=memory(1500, 10),
            runtime=30,
        params:
            surface=COHORT["surface"],
            responds=RESPONDS,
            library=library("cohort/targets"),
        message:
            "Genes and pairs that mark what resists"
        script:
            "../scripts/cohort/targets.py"

    rule cohort_figures:
        input:
            unpack(prediction_parts),
            features=rules.cohort_features.output.features,
            differences=rules.cohort_features.output.differences,
            notes=[
                rules.cohort_features.output.notes,
                rules.biomarkers.output.notes,
                rules.targets.output.notes,
            ],
        output:
            composition=shown(
                f"{COHORT_STUDY}/figures/composition.png",
                "cohort_composition_figure",
                "Cohort",
                sample="all",
                item="what patients' tissues are made of",
            ),
            effects=shown(
                f"{COHORT_STUDY}/figures/differences.png",
                "cohort_differences_figure",
                "Cohort",
                sample="all",
                item="differences between patients (figure)",
            ),
            metrics=shown(
                f"{COHORT_STUDY}/metrics.tsv", "cohort_metrics_table", "Cohort", sample="all", item="scores (table)"
            ),
            verdict=solid(f"{COHORT_STUDY}/verdict.json"),
        log:
            logs("cohort/cohort_figures"),
        benchmark:
            timings("cohort/cohort_figures")
        conda:
            env("cohort")
        threads: 1
        resources:
            mem_mb=memory(1000, 10),
            runtime=20,
        params:
            options={name: COHORT[name] for name in ("positive", "negative", "baseline")},
            library=library("cohort/cohort_figures"),
        message:
            "Drawing the patients side by side"
        script:
            "../scripts/cohort/cohort_figures.py"


if RESPONDS:

    rule predict_response:
        input:
            features=rules.cohort_features.output.features,
            expression=rules.cohort_features.output.expression,
        output:
            predictions=solid(f"{COHORT_STUDY}/predictions.parquet"),
            scores=solid(f"{COHORT_STUDY}/response_metrics.tsv"),
            said=solid(f"{COHORT_STUDY}/response.json"),
            folds=shown(
                f"{COHORT_STUDY}/folds.tsv", "response_folds_table", "Cohort", sample="all", item="who is tested where"
            ),
            settings=solid(f"{COHORT_STUDY}/settings.json"),
            forest=shown(
                f"{COHORT_STUDY}/figures/response.png",
                "response_figure",
                "Cohort",
                sample="all",
                item="response: scores beside floors",
            ),
            calibration=shown(
                f"{COHORT_STUDY}/figures/calibration.png",
                "response_calibration_figure",
                "Cohort",
                sample="all",
                item="response: calibration",
            ),
        log:
            logs("cohort/predict_response"),
        benchmark:
            timings("cohort/predict_response")
        conda:
            env("cohort")
        threads: 1
        resources:
            mem_mb=memory(2500, 10),
            runtime=240,
        params:
            study=study.name,
            options={
                name: COHORT[name]
                for name in (
                    "positive",
                    "negative",
                    "baseline",
                    "min_patients",
                    "models",
                    "model",
                    "predictors",
                    "genes",
                    "markers",
                    "folds",
                    "repeats",
                    "inner_folds",
                    "permutations",
                    "bootstraps",
                )
            },
            seed=study.config["seed"],
            library=library("cohort/predict_response"),
        message:
            "Predicting the response of patients that the models have not seen"
        script:
            "../scripts/cohort/predict_response.py"

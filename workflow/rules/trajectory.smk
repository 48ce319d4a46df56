# Where cells are going: order, terminal states, fate probabilities, driver genes, and whether they come out again.


include: "inputs/trajectory.smk"


TRAJECTORY_STUDY = study.results("trajectory")


if TRAJECTORY_SAMPLES:

    rule trajectory:
        input:
            unpack(trajectory_input),
            filtered=rules.qc.output.filtered,
            features=rules.features.output.features,
        output:
            fates=solid(f"{SAMPLE}/fates.parquet"),
            drivers=solid(f"{SAMPLE}/drivers.parquet"),
            trends=solid(f"{SAMPLE}/trends.parquet"),
            top=shown(
                f"{SAMPLE}/top_drivers.tsv",
                "drivers_table",
                "Trajectory",
                sample="{sample}",
                item="driver genes (table)",
            ),
            states=shown(
                f"{SAMPLE}/trajectory/states.tsv",
                "macrostates_table",
                "Trajectory",
                sample="{sample}",
                item="macrostates (table)",
            ),
            replicates=solid(f"{SAMPLE}/trajectory/replicates.tsv"),
            floors=solid(f"{SAMPLE}/trajectory/floors.parquet"),
            floor_drivers=solid(f"{SAMPLE}/trajectory/floor_drivers.parquet"),
            facts=solid(f"{SAMPLE}/trajectory/facts.json"),
        log:
            logs("trajectory/{sample}/trajectory"),
        benchmark:
            timings("trajectory/{sample}/trajectory")
        conda:
            env("trajectory")
        threads: 1
        resources:
            mem_mb=memory(2500, 6),
            runtime=240,
        params:
            options=TRAJECTORY_OPTIONS,
            target_sum=EXPRESSION["features"]["target_sum"],
            seed=study.config["seed"],
            library=library("trajectory/trajectory"),
        message:
            "Where the cells of {wildcards.sample} go"
        script:
            "../scripts/trajectory/trajectory.py"

    rule trajectory_figures:
        input:
            unpack(trajectory_groups_input),
            filtered=rules.qc.output.filtered,
            umap=rules.umap.output.umap,
            fates=rules.trajectory.output.fates,
            drivers=rules.trajectory.output.drivers,
            trends=rules.trajectory.output.trends,
            replicates=rules.trajectory.output.replicates,
            image=sample_image,
        output:
            order=shown(
                f"{FIGURES}/trajectory.png",
                "trajectory_figure",
                "Trajectory",
                sample="{sample}",
                item="order and states",
            ),
            fates=shown(f"{FIGURES}/fates.png", "fates_figure", "Trajectory", sample="{sample}", item="fates"),
            drivers=shown(
                f"{FIGURES}/drivers.png", "drivers_figure", "Trajectory", sample="{sample}", item="driver genes"
            ),
            trends=shown(
                f"{FIGURES}/trends.png", "trends_figure", "Trajectory", sample="{sample}", item="genes along fates"
            ),
            stability=shown(
                f"{FIGURES}/trajectory_stability.png",
                "trajectory_stability_figure",
                "Trajectory",
                sample="{sample}",
                item="does it come out again",
            ),
        log:
            logs("trajectory/{sample}/trajectory_figures"),
        benchmark:
            timings("trajectory/{sample}/trajectory_figures")
        conda:
            env("trajectory")
        threads: 1
        resources:
            mem_mb=memory(1500, 1),
            runtime=30,
        params:
            labels=TRAJECTORY["labels"],
            library=library("trajectory/trajectory_figures"),
        message:
            "Drawing the trajectory of {wildcards.sample}"
        script:
            "../scripts/trajectory/trajectory_figures.py"

    rule score_trajectory:
        input:
            unpack(all_trajectory_groups),
            filtered=expand(rules.qc.output.filtered, sample=TRAJECTORY_SAMPLES),
            fates=expand(rules.trajectory.output.fates, sample=TRAJECTORY_SAMPLES),
            drivers=expand(rules.trajectory.output.drivers, sample=TRAJECTORY_SAMPLES),
            states=expand(rules.trajectory.output.states, sample=TRAJECTORY_SAMPLES),
            replicates=expand(rules.trajectory.output.replicates, sample=TRAJECTORY_SAMPLES),
            floors=expand(rules.trajectory.output.floors, sample=TRAJECTORY_SAMPLES),
            floor_drivers=expand(rules.trajectory.output.floor_drivers, sample=TRAJECTORY_SAMPLES),
            facts=expand(rules.trajectory.output.facts, sample=TRAJECTORY_SAMPLES),
        output:
            metrics=shown(
                f"{TRAJECTORY_STUDY}/metrics.tsv",
                "trajectory_table",
                "Trajectory",
                sample="all",
                item="scores (table)",
            ),
            verdict=solid(f"{TRAJECTORY_STUDY}/verdict.json"),
            states=shown(
                f"{TRAJECTORY_STUDY}/terminal_states.tsv",
                "terminal_table",
                "Trajectory",
                sample="all",
                item="terminal states and their drivers",
            ),
        log:
            logs("trajectory/score_trajectory"),
        benchmark:
            timings("trajectory/score_trajectory")
        conda:
            env("trajectory")
        threads: 1
        resources:
            mem_mb=memory(1500, 1),
            runtime=30,
        params:
            study=study.name,
            samples=TRAJECTORY_SAMPLES,
            options={name: TRAJECTORY[name] for name in ("labels", "kernels", "expected")},
            seed=study.config["seed"],
            library=library("trajectory/score_trajectory"),
        message:
            "Scoring the trajectories beside their floors"
        script:
            "../scripts/trajectory/score_trajectory.py"

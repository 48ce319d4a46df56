"""A GPU that is asked for and missing is an error in words; without one asked for, the log says what was used."""

TARGET = "results/demo/atlas/fits/random-1/residual.npz"
LOG = "logs/demo/atlas/fits/random-1/residual.log"


def test_require_gpu_and_the_switch(checkout):
    import torch

    switched_off = ("--resources", "gpu=0")
    code, _ = checkout.run(*switched_off, "--config", "require_gpu=true", "--", TARGET, check=False)
    assert code != 0
    message = (checkout.root / LOG).read_text()
    assert "rule fit_fold: require_gpu is true, but the job got gpu=0. Run on a GPU node" in message
    assert "Traceback" not in message
    assert not (checkout.root / TARGET).exists()
    if not torch.cuda.is_available():
        code, _ = checkout.run("--config", "require_gpu=true", "--", TARGET, check=False)
        assert code != 0
        assert "require_gpu is true, but no GPU was found" in (checkout.root / LOG).read_text()
    checkout.run(*switched_off, "--", TARGET)
    assert "device: cpu (granted gpu=0" in (checkout.root / LOG).read_text()
    assert (checkout.root / TARGET).is_file()
    # Floors train no network: they never ask for one.
    floors = TARGET.replace("residual", "floors")
    checkout.run("--config", "require_gpu=true", "--", floors)
    assert "device: cpu (granted gpu=0)" in (checkout.root / LOG.replace("residual", "floors")).read_text()

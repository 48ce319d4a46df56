# A rule that takes more memory than it asks for at first, with the workflow's own memory function.
import sys

sys.path.insert(0, config["library"])

from histoweft.resources import memory


rule hungry:
    output:
        "fed.txt",
    resources:
        mem_mb=memory(700),
        runtime=5,
    shell:
        "python3 -c 'import time; x = b\"x\" * (900 << 20); time.sleep(8); print(len(x))' > {output}"


rule slow:
    output:
        "slow.txt",
    resources:
        mem_mb=memory(500),
        runtime=5,
    shell:
        "sleep $(test -e quick && echo 0 || echo 120); echo done > {output}"


rule accelerated:
    output:
        "device.txt",
    resources:
        mem_mb=memory(500),
        runtime=5,
        gpu=1,
    shell:
        "echo $CUDA_VISIBLE_DEVICES > {output}"

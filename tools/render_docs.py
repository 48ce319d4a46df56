"""Write config/README.md from the schemas."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY / "workflow" / "lib"))
    from histoweft import config

    text = config.markdown(config.load_schema("config"), config.load_schema("samples"))
    (REPOSITORY / "config" / "README.md").write_text(text, encoding="utf-8")

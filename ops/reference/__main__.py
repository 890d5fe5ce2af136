"""Write every reference page."""

from ops.reference.pages import generated

for path, content in generated().items():
    path.write_text(content)

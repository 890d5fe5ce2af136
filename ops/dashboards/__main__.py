"""Write every dashboard, and the chart's copies of dashboards and alert rules."""

from ops.dashboards.pages import generated

for path, content in generated().items():
    path.write_text(content)

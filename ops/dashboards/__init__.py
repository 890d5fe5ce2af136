"""Grafana dashboards as code: `python -m ops.dashboards` writes their JSON and the chart's copies."""

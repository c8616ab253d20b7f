"""The bridge to Airflow: the only package that imports it."""

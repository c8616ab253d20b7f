"""LLMOps for Apache Airflow: the whole life of an LLM application as Airflow DAGs."""

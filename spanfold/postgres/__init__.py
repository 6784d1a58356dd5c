"""How spanfold talks to Postgres: DSNs, pools, retries and binary COPY."""

#!/bin/sh
# Makes the roles and the databases of Visavis and Synapse. The PostgreSQL image runs it once, at its first start.
#
# visavis_owner owns the tables and is for `visavis migrate` alone; visavis_app is who Visavis is at work, and gets
# from the migration what it may do. Neither they nor Synapse can open the other's database.
set -eu
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set owner_password `cat "${SECRETS:-/run/secrets}/owner_password"`
\set app_password `cat "${SECRETS:-/run/secrets}/app_password"`
\set synapse_password `cat "${SECRETS:-/run/secrets}/synapse_password"`
CREATE ROLE visavis_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE visavis_app LOGIN PASSWORD :'app_password';
CREATE ROLE synapse LOGIN PASSWORD :'synapse_password';
CREATE DATABASE visavis OWNER visavis_owner TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8';
-- Synapse refuses any other order of letters.
CREATE DATABASE synapse OWNER synapse TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C';
REVOKE ALL ON DATABASE visavis, synapse FROM PUBLIC;
GRANT CONNECT ON DATABASE visavis TO visavis_app;
SQL

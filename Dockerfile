# Visavis and what it needs to run, nothing else: no demo, no servers, no tests.
#   docker build -t visavis .
FROM python:3.11-slim-bookworm AS packages
COPY requirements.txt .
RUN python -m venv /opt/packages \
    && /opt/packages/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/visavis --create-home --shell /usr/sbin/nologin visavis \
    && chmod 0700 /var/lib/visavis \
    && printf '#!/bin/sh\nexec /opt/packages/bin/python /opt/visavis/visavis.py "$@"\n' > /usr/local/bin/visavis \
    && chmod 0755 /usr/local/bin/visavis
COPY --from=packages /opt/packages /opt/packages
WORKDIR /opt/visavis
COPY LICENSE config.example.yaml visavis.py ./
COPY supervision supervision
COPY bot bot
COPY bridge bridge
COPY web web
COPY migrations migrations
COPY locales locales
RUN /opt/packages/bin/python -m compileall -q .

ENV VISAVIS_CONFIG=/etc/visavis/config.yaml PYTHONUNBUFFERED=1
USER visavis
WORKDIR /var/lib/visavis
# The bot's keys live here.
VOLUME /var/lib/visavis
EXPOSE 8080 9108
# Ready means: the database answers and has exactly this version's tables. A container that runs `bot` or `bridge`
# alone serves no pages, so give it --no-healthcheck and look at its metrics instead.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["/opt/packages/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/ready', timeout=8)"]
ENTRYPOINT ["visavis"]
CMD ["run"]

# The image of compose.yaml: this checkout, installed at the versions of constraints.txt.
FROM python:3.11-slim
WORKDIR /unix
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt --editable .

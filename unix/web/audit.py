"""The audit pages: overview, studies, one study, decisions, samples, downloads, cleaning again."""

from typing import Annotated, Any
from urllib.parse import parse_qsl, quote

import polars as pl
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from unix.data.cleaning.endpoint import EMBEDDED
from unix.data.cleaning.guards import GUARDS
from unix.data.cleaning.localise import faults
from unix.data.cleaning.run import CleanConfig, clean
from unix.data.text_labels import label_texts
from unix.errors import ConfigError, ImageError
from unix.records import CleanedReport, Split, Status
from unix.resources import resource
from unix.web import downloads, pictures, reviewing
from unix.web.filters import LABEL_SIDES, NOT_CLEANED, SORTS, StudyFilter, page_rows
from unix.web.library import View
from unix.web.overview import overview
from unix.web.pages import Pages, form_of, session_of
from unix.web.reviewing import APPROVABLE
from unix.web.sampling import STRATA, Sample, select
from unix.web.study import diff_pieces, find, study_page, versions

OUTCOMES = (
    *("approved", "flagged_unreviewed", "cleaning_rejected", "review_rejected", "cleaning_failed", "not_cleaned"),
)
_TABLE = [
    *("row", "source", "study_id", "subject_id", "status", "flags", "split", "views", "raw_words", "clean_words"),
    *("decision", "reviewer", "outcome", "findings", "impression", "edited_findings", "edited_impression"),
]


def router(pages: Pages) -> APIRouter:
    """The audit pages over the pages' library."""
    routes = APIRouter()
    library = pages.library

    def asked(request: Request) -> tuple[View, StudyFilter]:
        chosen = StudyFilter.parse(dict(request.query_params))
        return library.view(chosen.prompt, chosen.model), chosen

    def filter_of_form(form: dict[str, str]) -> tuple[View, StudyFilter]:
        chosen = StudyFilter.parse(dict(parse_qsl(form.get("query", ""))))
        return library.view(chosen.prompt, chosen.model), chosen

    def row_or_404(view: View, study: str) -> int:
        row = find(view, study)
        if row is None:
            raise HTTPException(404)
        return row

    @routes.get("/")
    def show_overview(request: Request) -> Response:
        view, _ = asked(request)
        return pages.show(
            request,
            "overview.html.j2",
            o=overview(library, view),
            view=view,
            cleanings=library.cleanings,
            jobs=pages.jobs,
            uri=library.store.uri,
        )

    @routes.get("/studies")
    def show_studies(request: Request) -> Response:
        view, chosen = asked(request)
        rows = select(view, chosen)
        last = max(1, -(-rows.len() // chosen.size))
        if chosen.page > last:
            return RedirectResponse(f"/studies?{chosen.query(page=last)}", 303)
        part = request.headers.get("hx-target") == "results"
        return pages.show(
            request,
            "results.html.j2" if part else "studies.html.j2",
            f=chosen,
            rows=page_rows(view, rows, chosen, _TABLE).to_dicts(),
            count=rows.len(),
            total=view.rows.height,
            last=last,
            sorts=list(SORTS),
            view=view,
            choices=_choices(view),
            cleanings=library.cleanings,
            act=reviewing.last_act(library, session_of(request).reviewer),
        )

    @routes.get("/studies.{form}")
    def export(request: Request, form: str) -> Response:
        view, chosen = asked(request)
        rows = select(view, chosen)
        match form:
            case "csv":
                content, kind = downloads.as_csv(view, rows), "text/csv; charset=utf-8"
            case "parquet":
                content, kind = downloads.as_parquet(view, rows), "application/vnd.apache.parquet"
            case _:
                raise HTTPException(404)
        name = {"content-disposition": f'attachment; filename="studies.{form}"'}
        return StreamingResponse(content, media_type=kind, headers=name)

    @routes.get("/study")
    def show_study(request: Request, study: str) -> Response:
        view, chosen = asked(request)
        row = row_or_404(view, study)
        return pages.show(request, "study.html.j2", **_study(view, chosen, row, study, request))

    def _study(view: View, chosen: StudyFilter, row: int, study: str, request: Request) -> dict[str, Any]:
        page = study_page(library, view, row)
        place, count, links = _neighbours(view, chosen, row)
        return {
            "p": page,
            "f": chosen,
            "study": study,
            "view": view,
            "place": place,
            "count": count,
            "links": links,
            "versions_known": len(library.cleanings),
            "history": reviewing.history(library, page.row["source"], page.row["study_id"]),
            "act": reviewing.last_act(library, session_of(request).reviewer),
            "can_approve": page.row["status"] in APPROVABLE,
            "draft": page.text,
            "warning": None,
            "note": page.row["note"] or "",
        }

    @routes.get("/versions")
    def show_versions(request: Request, study: str) -> Response:
        view, chosen = asked(request)
        row = view.rows.row(row_or_404(view, study), named=True)
        return pages.show(
            request, "versions.html.j2", versions=versions(library, row), view=view, f=chosen, study=study
        )

    @routes.get("/image/{image_id}")
    def show_image(image_id: str, size: Annotated[pictures.Size, Query()] = "512") -> Response:
        try:
            content = pictures.picture(library, image_id, size)
        except ImageError as error:
            return Response(f"this image cannot be shown: {error.reason}", 422, media_type="text/plain")
        if content is None:
            raise HTTPException(404)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @routes.post("/guards")
    def check_edit(request: Request) -> Response:
        form = dict(form_of(request))
        view, _ = filter_of_form(form)
        row = view.rows.row(row_or_404(view, form.get("study", "")), named=True)
        if view.cleaning is None:
            raise HTTPException(404)
        text = _text_of(form)
        pair = reviewing.pair_of({**row, "flags": []}, view.cleaning, text)
        return pages.show(
            request,
            "guards.html.j2",
            verdict=reviewing.judge_edit(row, view.cleaning, text),
            faults=faults(pair),
            text=text,
            diff=diff_pieces(str(row["report_raw"]), text, ()),
        )

    @routes.post("/decide")
    def decide(request: Request) -> Response:
        form = dict(form_of(request))
        view, chosen = filter_of_form(form)
        study = form.get("study", "")
        row = row_or_404(view, study)
        decision = form.get("decision", "")
        if decision not in ("approve", "reject", "edit"):
            raise ConfigError("a decision is approve, reject or edit")
        text = _text_of(form) if decision == "edit" else None
        if text is not None and view.cleaning is not None and form.get("despite_guards") != "yes":
            verdict = reviewing.judge_edit(view.rows.row(row, named=True), view.cleaning, text)
            if verdict.status is not Status.ACCEPTED:
                values = _study(view, chosen, row, study, request)
                values.update(draft=text, warning=verdict, note=form.get("note", ""))
                return pages.show(request, "study.html.j2", status_code=409, **values)
        following = _neighbours(view, chosen, row)[2]["next"]
        reviewing.decide(
            library,
            view,
            pl.Series([row]),
            decision,
            session_of(request).reviewer,
            form.get("note", "").strip(),
            text,
        )
        here = f"/study?study={quote(study)}&{chosen.query()}"
        return RedirectResponse(here if decision == "edit" or not following else following, 303)

    @routes.post("/undo")
    def undo(request: Request) -> Response:
        reviewing.undo(library, session_of(request).reviewer)
        return RedirectResponse(_back(form_of(request).get("back", "")), 303)

    @routes.get("/bulk")
    def bulk_form(request: Request, decision: str) -> Response:
        view, chosen = asked(request)
        if decision not in ("approve", "reject"):
            raise ConfigError("many studies at once are approved or rejected")
        rows = select(view, chosen)
        statuses = view.rows[rows, ["status", "decision"]]
        counts = dict(statuses.group_by(pl.col("status").fill_null(NOT_CLEANED)).len().sort("status").iter_rows())
        applies = sum(counts.get(status, 0) for status in APPROVABLE) if decision == "approve" else rows.len()
        return pages.show(
            request,
            "bulk.html.j2",
            f=chosen,
            decision=decision,
            count=rows.len(),
            applies=applies,
            counts=counts,
            decided=statuses["decision"].count(),
        )

    @routes.post("/bulk")
    def bulk(request: Request) -> Response:
        form = dict(form_of(request))
        view, chosen = filter_of_form(form)
        decision = form.get("decision", "")
        rows = select(view, chosen)
        if decision not in ("approve", "reject"):
            raise ConfigError("many studies at once are approved or rejected")
        if form.get("count") != str(rows.len()):
            raise ConfigError(f"the filter holds {rows.len():,} studies by now, not what you confirmed: look again")
        reviewing.decide(library, view, rows, decision, session_of(request).reviewer, form.get("note", "").strip())
        return RedirectResponse(f"/studies?{chosen.query(page=1)}", 303)

    @routes.get("/sample")
    def show_sample(request: Request, n: int = 50, seed: int = 0, stratify: str = "") -> Response:
        view, chosen = asked(request)
        if "n" in request.query_params:
            sample = Sample.parse(f"{seed}:{n}" + (f":{stratify}" if stratify else ""))
            return RedirectResponse(f"/sample?{chosen.query(sample=str(sample), page=1)}", 303)
        estimate, rows, first = None, [], None
        if chosen.sample:
            sample = Sample.parse(chosen.sample)
            numbers = select(view, chosen)
            estimate = sample.estimate(view, chosen.population)
            rows = view.rows[numbers, _TABLE].to_dicts()
            open_rows = [row["row"] for row in rows if row["decision"] is None]
            first = f"/study?{_study_query(view, open_rows[0], chosen)}" if open_rows else None
        else:
            sample = Sample(seed=seed, n=50)
        return pages.show(
            request,
            "sample.html.j2",
            f=chosen,
            sample=sample,
            estimate=estimate,
            rows=rows,
            first=first,
            strata=STRATA,
            population=len(select(view, chosen.population)),
            view=view,
            act=reviewing.last_act(library, session_of(request).reviewer),
        )

    @routes.get("/rejections")
    def show_rejections(request: Request, job: str = "", reason: str = "", page: int = 1) -> Response:
        wanted = {name: value for name, value in (("job", job), ("reason", reason)) if value}
        chosen = library.store.scan("rejections").filter(
            *(pl.col(name) == value for name, value in wanted.items()), pl.lit(True)
        )
        size = 100
        ordered = chosen.sort("job", "reason", "source", "item").collect()
        return pages.show(
            request,
            "rejections.html.j2",
            rows=ordered.slice((max(1, page) - 1) * size, size).to_dicts(),
            count=ordered.height,
            page=max(1, page),
            last=max(1, -(-ordered.height // size)),
            job=job,
            reason=reason,
        )

    @routes.get("/reclean")
    def reclean_form(request: Request) -> Response:
        view, chosen = asked(request)
        return pages.show(
            request,
            "reclean.html.j2",
            f=chosen,
            count=len(select(view, chosen)),
            view=view,
            prompts=sorted(path.name for path in resource("prompts", "clean_report").iterdir() if path.is_dir()),
            open_data=library.open_data,
            embedded=EMBEDDED,
        )

    @routes.post("/reclean")
    def reclean(request: Request) -> Response:
        form = dict(form_of(request))
        view, chosen = filter_of_form(form)
        rows = select(view, chosen)
        hosts = tuple(form.get("acknowledge_host", "").split())
        config = CleanConfig.build(
            {
                "store": library.store.uri,
                "endpoint": form.get("endpoint") or EMBEDDED,
                "base_url": form.get("base_url") or None,
                "model": form.get("model_name") or None,
                "prompt": form.get("prompt_version", ""),
                "acknowledge_host": hosts,
                "retry_rejected": True,
                "only": frozenset(view.rows[rows, "report_sha256"].to_list()),
            }
        )
        clean(config.model_copy(update={"dry_run": True}))  # refuses now, on this page, what it would refuse later
        title = f"clean {rows.len():,} studies again with prompt {config.prompt} at {config.endpoint}"
        pages.jobs.submit(title, clean, config)
        return RedirectResponse("/jobs", 303)

    @routes.post("/labels")
    def label(request: Request) -> Response:
        pages.jobs.submit("label every report", label_texts, library.store)
        return RedirectResponse("/jobs", 303)

    @routes.get("/jobs")
    def show_jobs(request: Request) -> Response:
        part = request.headers.get("hx-request") is not None
        return pages.show(request, "jobs_part.html.j2" if part else "jobs.html.j2", jobs=pages.jobs)

    return routes


def _neighbours(view: View, chosen: StudyFilter, row: int) -> tuple[int | None, int, dict[str, str | None]]:
    """Where a study stands in the filter, how many are there, and the addresses before and after it."""
    rows = select(view, chosen)
    place = rows.index_of(row)
    before = rows[place - 1] if place else None
    after = rows[place + 1] if place is not None and place + 1 < rows.len() else None
    if place is None and rows.len():  # it has left the filter: what would follow it is next
        later = rows.filter(rows > row)
        after = later[0] if later.len() else rows[0]
    links = {
        side: None if number is None else f"/study?{_study_query(view, number, chosen)}"
        for side, number in (("previous", before), ("next", after))
    }
    return place, rows.len(), links


def _study_query(view: View, row: int, chosen: StudyFilter) -> str:
    source, study_id = view.rows[[row], ["source", "study_id"]].row(0)
    return f"study={quote(f'{source}/{study_id}')}&{chosen.query()}".rstrip("&")


def _text_of(form: dict[str, str]) -> CleanedReport:
    return CleanedReport(
        form.get("findings", "").replace("\r\n", "\n").strip(), form.get("impression", "").replace("\r\n", "\n").strip()
    )


def _back(path: str) -> str:
    """A path of this server, or the studies."""
    local = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if local else "/studies"


def _choices(view: View) -> dict[str, list[str]]:
    """What each filter can be set to, in this view."""

    def distinct(column: str) -> list[str]:
        values = view.rows.lazy().select(pl.col(column))
        if isinstance(view.rows.schema[column], pl.List):
            values = values.explode(column, empty_as_null=False, keep_nulls=False)
        return sorted(str(value) for value in values.drop_nulls().unique().collect().to_series())

    def compute() -> dict[str, list[str]]:
        known = [guard.name for guard in GUARDS]
        found = distinct("flags")
        return {
            "status": [*(status.value for status in Status), NOT_CLEANED],
            "flag": [name for name in known if name in found] + [name for name in found if name not in known],
            "source": distinct("source"),
            "split": [*(split.value for split in Split), "none"],
            "view": distinct("views"),
            "noise": distinct("categories"),
            "outcome": list(OUTCOMES),
            "label": list(LABEL_SIDES),
            "review": ["none", "any", "approve", "reject", "edit"],
        }

    return view.steady.get("choices", compute)

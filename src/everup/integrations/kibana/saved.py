"""Saved objects: of Kibana 7.10 and later and OpenSearch Dashboards (as lines of NDJSON), and the
documents that Kibana 5 keeps in its index. Pure."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from everup.integrations.elasticsearch import names, templates
from everup.integrations.kibana import boards
from everup.integrations.kibana.shapes import Agg, Dashboard, Options, Search, View, Visualization

PREFIX: Final = "everup-"
_INDEX_REF: Final = "kibanaSavedObjectMeta.searchSourceJSON.index"
_VERSIONS: Final = {
    "index-pattern": "7.6.0",
    "visualization": "7.10.0",
    "search": "7.9.3",
    "dashboard": "7.9.3",
}
"""What these are written as: what is later converts them, OpenSearch Dashboards knows no later."""
_COLUMNS: Final = 4
"""Columns of the later Kibana for each of ours; it has 48."""
_ROW: Final = 5


class Document(NamedTuple):
    """One document of Kibana 5."""

    type: str
    name: str
    source: dict[str, Any]


def pattern(view: View) -> str:
    """Give the index pattern of a data view: every namespace."""
    return {"events": names.events("*"), "incidents": names.incidents("*")}[view]


def modern() -> list[dict[str, Any]]:
    """Give the saved objects for ``_import``, what others refer to first."""
    found = [_view(view) for view in _views()]
    found += [_visualization(each) for each in boards.visualizations()]
    found += [_search(each) for each in boards.SEARCHES]
    found += [_dashboard(each) for each in boards.DASHBOARDS]
    return found


def ndjson() -> bytes:
    """Give the same as a file to import."""
    return b"".join(json.dumps(each, sort_keys=True).encode() + b"\n" for each in modern())


def legacy() -> list[Document]:
    """Give the documents for Kibana 5.1 to 5.6."""
    found = [
        Document(
            "index-pattern",
            pattern(view),
            {"title": pattern(view), "timeFieldName": "@timestamp", "fields": _fields(view)},
        )
        for view in _views()
    ]
    for vis in boards.visualizations():
        found.append(Document("visualization", PREFIX + vis.name, _old_visualization(vis)))
    for search in boards.SEARCHES:
        source = _listed(search) | {"sort": ["@timestamp", "desc"]}
        source["kibanaSavedObjectMeta"] = _old_source(search.view, search.query)
        found.append(Document("search", PREFIX + search.name, source))
    for board in boards.DASHBOARDS:
        found.append(Document("dashboard", PREFIX + board.name, _old_dashboard(board)))
    return found


def _views() -> Sequence[View]:
    return ("events", "incidents")


def _view(view: View) -> dict[str, Any]:
    attributes = {
        "title": pattern(view),
        "timeFieldName": "@timestamp",
        "fields": _fields(view),
    }
    return _object("index-pattern", view, attributes, [])


def _visualization(vis: Visualization) -> dict[str, Any]:
    source: Options = {"query": {"language": "lucene", "query": vis.query}, "filter": []}
    references = []
    if vis.kind != "markdown":
        source["indexRefName"] = _INDEX_REF
        references.append(_reference(_INDEX_REF, "index-pattern", vis.view))
    attributes = {
        "title": vis.title,
        "description": "",
        "version": 1,
        "uiStateJSON": "{}",
        "visState": json.dumps(_state(vis, _params(vis), "_key")),
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    return _object("visualization", vis.name, attributes, references)


def _search(search: Search) -> dict[str, Any]:
    source = {
        "query": {"language": "lucene", "query": search.query},
        "filter": [],
        "indexRefName": _INDEX_REF,
    }
    attributes = _listed(search) | {
        "sort": [["@timestamp", "desc"]],
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    references = [_reference(_INDEX_REF, "index-pattern", search.view)]
    return _object("search", search.name, attributes, references)


def _dashboard(board: Dashboard) -> dict[str, Any]:
    panels, references = [], []
    for n, panel in enumerate(board.panels):
        grid = {
            "x": panel.column * _COLUMNS,
            "y": panel.row * _ROW,
            "w": panel.width * _COLUMNS,
            "h": panel.height * _ROW,
            "i": str(n),
        }
        panels.append(
            {
                "version": "7.9.3",
                "panelIndex": str(n),
                "panelRefName": f"panel_{n}",
                "gridData": grid,
                "embeddableConfig": {},
            }
        )
        references.append(_reference(f"panel_{n}", _type(panel.of), panel.of.name))
    attributes = _shown(board) | {
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "refreshInterval": {"pause": True, "value": 0},
        "kibanaSavedObjectMeta": {
            "searchSourceJSON": json.dumps(
                {"query": {"language": "lucene", "query": "*"}, "filter": []}
            )
        },
    }
    return _object("dashboard", board.name, attributes, references)


def _object(
    type_: str, name: str, attributes: dict[str, Any], references: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "type": type_,
        "id": PREFIX + name,
        "attributes": attributes,
        "references": references,
        "migrationVersion": {type_: _VERSIONS[type_]},
    }


def _reference(name: str, type_: str, of: str) -> dict[str, str]:
    return {"name": name, "type": type_, "id": PREFIX + of}


def _type(of: Visualization | Search) -> str:
    return "search" if isinstance(of, Search) else "visualization"


def _listed(search: Search) -> dict[str, Any]:
    return {
        "title": search.title,
        "description": "",
        "hits": 0,
        "version": 1,
        "columns": list(search.columns),
    }


def _shown(board: Dashboard) -> dict[str, Any]:
    return {
        "title": board.title,
        "description": board.description,
        "hits": 0,
        "version": 1,
        "timeRestore": True,
        "timeFrom": board.since,
        "timeTo": "now",
    }


def _old_visualization(vis: Visualization) -> dict[str, Any]:
    meta = _old_source(vis.view, vis.query)
    if vis.kind == "markdown":
        meta = {"searchSourceJSON": json.dumps({"filter": []})}
    return {
        "title": vis.title,
        "description": "",
        "version": 1,
        "uiStateJSON": "{}",
        "visState": json.dumps(_state(vis, _old_params(vis), "_term") | {"listeners": {}}),
        "kibanaSavedObjectMeta": meta,
    }


def _old_source(view: View, query: str) -> dict[str, str]:
    asked = {"query_string": {"query": query, "analyze_wildcard": True}}
    source = {"index": pattern(view), "query": asked, "filter": []}
    return {"searchSourceJSON": json.dumps(source)}


def _old_dashboard(board: Dashboard) -> dict[str, Any]:
    panels: list[Options] = []
    for n, panel in enumerate(board.panels, 1):
        words: Options = {
            "id": PREFIX + panel.of.name,
            "type": _type(panel.of),
            "panelIndex": n,
            "col": panel.column + 1,
            "row": panel.row + 1,
            "size_x": panel.width,
            "size_y": panel.height,
        }
        if isinstance(panel.of, Search):
            words |= {"columns": list(panel.of.columns), "sort": ["@timestamp", "desc"]}
        panels.append(words)
    every = {"query_string": {"query": "*", "analyze_wildcard": True}}
    return _shown(board) | {
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"darkTheme": False}),
        "uiStateJSON": "{}",
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps({"filter": [{"query": every}]})},
    }


def _state(vis: Visualization, params: Options, alphabetic: str) -> Options:
    return {
        "title": vis.title,
        "type": vis.kind,
        "params": params,
        "aggs": [_agg(vis, n, agg, alphabetic) for n, agg in enumerate(vis.aggs, 1)],
    }


def _agg(vis: Visualization, n: int, agg: Agg, alphabetic: str) -> Options:
    params: Options = {"customLabel": agg.label} if agg.label else {}
    if agg.field:
        params["field"] = agg.field
    schema = "metric"
    if agg.role == "axis":
        schema = "segment"
        params |= {"interval": "auto", "min_doc_count": 1, "extended_bounds": {}}
    elif agg.role == "split":
        schema = {"table": "bucket", "pie": "segment"}.get(vis.kind, "group")
        counted = vis.aggs[0].type != "percentiles"
        order = {"order": "desc", "orderBy": "1"} if counted else {
            "order": "asc", "orderBy": alphabetic
        }  # fmt: skip
        params |= {"size": agg.size, **order}
    elif agg.percents:
        params["percents"] = list(agg.percents)
    return {"id": str(n), "enabled": True, "type": agg.type, "schema": schema, "params": params}


def _common_params(vis: Visualization) -> Options:
    if vis.kind == "markdown":
        return {"markdown": vis.text, "fontSize": 12, "openLinksInNewTab": False}
    if vis.kind == "table":
        return {
            "perPage": 10,
            "showPartialRows": False,
            "showMeticsAtAllLevels": False,  # spelt so by Kibana
            "sort": {"columnIndex": None, "direction": None},
            "showTotal": False,
            "totalFunc": "sum",
        }
    if vis.kind == "pie":
        return {"addTooltip": True, "addLegend": True, "legendPosition": "right", "isDonut": True}
    return {}


def _params(vis: Visualization) -> Options:
    if vis.kind == "metric":
        style = {"bgFill": "#000", "bgColor": False, "labelColor": False, "subText": "",
                 "fontSize": 40}  # fmt: skip
        return {
            "addTooltip": True,
            "addLegend": False,
            "type": "metric",
            "metric": {
                "percentageMode": False,
                "useRanges": False,
                "colorSchema": "Green to Red",
                "metricColorMode": "None",
                "colorsRange": [{"from": 0, "to": 10000}],
                "labels": {"show": True},
                "invertColors": False,
                "style": style,
            },
        }
    if vis.kind == "histogram":
        return _histogram()
    return _common_params(vis) | ({"type": "pie"} if vis.kind == "pie" else {})


def _histogram() -> Options:
    labels = {"show": True, "truncate": 100}
    return {
        "type": "histogram",
        "grid": {"categoryLines": False},
        "categoryAxes": [
            {"id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": True,
             "style": {}, "scale": {"type": "linear"}, "labels": labels, "title": {}}
        ],
        "valueAxes": [
            {"id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left",
             "show": True, "style": {}, "scale": {"type": "linear", "mode": "normal"},
             "labels": labels | {"rotate": 0, "filter": False}, "title": {"text": "events"}}
        ],
        "seriesParams": [
            {"show": True, "type": "histogram", "mode": "stacked",
             "data": {"label": "events", "id": "1"}, "valueAxis": "ValueAxis-1",
             "drawLinesBetweenPoints": True, "lineWidth": 2, "showCircles": True}
        ],
        "addTooltip": True,
        "addLegend": True,
        "legendPosition": "right",
        "times": [],
        "addTimeMarker": False,
        "labels": {"show": False},
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full",
                          "color": "#E7664C"},
    }  # fmt: skip


def _old_params(vis: Visualization) -> Options:
    if vis.kind == "metric":
        return {"handleNoResults": True, "fontSize": 40}
    if vis.kind == "histogram":
        return {
            "addTooltip": True,
            "addLegend": True,
            "legendPosition": "right",
            "scale": "linear",
            "mode": "stacked",
            "times": [],
            "addTimeMarker": False,
            "defaultYExtents": False,
            "setYExtents": False,
            "yAxis": {},
        }
    return _common_params(vis)


def _fields(view: View) -> str:
    types = {"keyword": "string", "text": "string", "long": "number", "double": "number"}
    found: list[Options] = []
    for name, type_ in templates.fields(view).items():
        found.append(_field(name, types.get(type_, type_), type_, whole=type_ != "text"))
    for name, type_ in (("_source", "_source"), ("_id", "string"), ("_index", "string")):
        found.append(_field(name, type_, name, whole=False))
    return json.dumps(found)


def _field(name: str, kind: str, type_: str, *, whole: bool) -> Options:
    return {
        "name": name,
        "type": kind,
        "esTypes": [type_],
        "count": 0,
        "scripted": False,
        "indexed": not name.startswith("_"),
        "analyzed": type_ == "text",
        "doc_values": whole,
        "searchable": not name.startswith("_"),
        "aggregatable": whole,
        "readFromDocValues": whole,
    }

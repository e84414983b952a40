"""Decides as an API server does by a ValidatingAdmissionPolicy, with Google's CEL."""

from cel_expr_python import cel

_NAMES = ["object", "oldObject", "request", "params", "variables", "authorizer"]


def _environment(may):
    """`may`: the verbs on bulkhead.dev/namespaces that the asking user has."""
    text, dyn = cel.Type.STRING, cel.Type.DYN

    def member(name, parameters, returns, does):
        overload = cel.Overload(f"authorizer_{name}", returns, parameters, True, does)
        return cel.FunctionDecl(name, [overload])

    return cel.NewEnv(
        variables={name: text if name == "authorizer" else dyn for name in _NAMES},
        functions=[
            member("group", [text, text], text, lambda _, group: group),
            member("resource", [text, text], text, lambda group, name: f"{group}/{name}"),
            member("check", [text, text], text, lambda path, verb: f"{verb} {path}"),
            member("allowed", [text], cel.Type.BOOL, lambda asked: asked in may),
        ],
    )


def _with_labels(count):
    return {"metadata": {"labels": {f"label-{number}": "a" for number in range(count)}}}


def decide(policy, case):
    """Whether a case of a policy is allowed, and by what."""
    spec = policy["spec"]
    may = {"mark bulkhead.dev/namespaces"} if case.get("mayMark") else set()
    environment = _environment(may)
    data = {
        "object": case.get("object") or _with_labels(case.get("labels", 0)),
        "oldObject": case.get("oldObject"),
        "params": case.get("params"),
        "request": {"userInfo": {"username": "somebody"}, **case.get("request", {})},
        "authorizer": "",
        "variables": {},
    }

    def value(expression):
        return environment.compile(expression).eval(data=data).plain_value()

    for condition in spec.get("matchConditions", []):
        if value(condition["expression"]) is not True:
            return True, f"not matched: {condition['name']}"
    for variable in spec.get("variables", []):
        data["variables"][variable["name"]] = value(variable["expression"])
    for validation in spec["validations"]:
        if value(validation["expression"]) is not True:
            if "messageExpression" in validation:
                return False, value(validation["messageExpression"])
            return False, validation["message"]
    return True, "every validation holds"

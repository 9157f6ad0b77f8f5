import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.engine import recipes

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


def step(op, **parameters):
    return {"version": 1, "steps": [{"op": op, **parameters}]}


@given(JSON)
def test_any_json_as_recipe_is_answered_with_sentences(value):
    assert all(isinstance(sentence, str) for sentence in recipes.problems(value))


@given(op=st.sampled_from(sorted(recipes.OPS)), data=st.data(), value=JSON)
def test_any_json_as_parameter_is_answered_with_sentences(op, data, value):
    name = data.draw(st.sampled_from(sorted(recipes.OPS[op])))
    assert all(sentence.startswith(f"step 1 ({op}): ") for sentence in recipes.problems(step(op, **{name: value})))


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (None, ["a recipe must be an object, not nothing"]),
        ({"version": 2, "steps": [{"op": "bw"}]}, ["version must be 1, not 2"]),
        ({"version": 1, "steps": []}, ["a recipe must have 1 to 24 steps, not 0"]),
        (step("melt"), ['step 1: there is no op "melt"']),
        (
            {"version": 1, "steps": [{"op": "bw"}, {"op": "bloom", "amount": 7}]},
            ["step 2 (bloom): amount must be between 0 and 2, not 7"],
        ),
        (step("bloom", amout=1), ['step 1 (bloom): there is no parameter "amout"']),
        (step("fog", colour="red"), ['step 1 (fog): colour must be a colour such as "#ffcc88", not "red"']),
        (step("bloom", amount=float("nan")), ["step 1 (bloom): amount must be between 0 and 2, not nan"]),
        (step("bloom", amount=True), ["step 1 (bloom): amount must be a number, not true"]),
        (
            step("bloom", amount=10**400),
            ["step 1 (bloom): amount must be between 0 and 2, not a number of many digits"],
        ),
        (step("brush", passes=7), ["step 1 (brush): passes must be between 1 and 6, not 7"]),
        (step("brush", passes=1.5), ["step 1 (brush): passes must be a whole number, not 1.5"]),
        (
            step("bloom", amount={"v": 3, "vary": 9}),
            [
                "step 1 (bloom): amount must be between 0 and 2, not 3",
                "step 1 (bloom): amount vary must be between 0 and 2, not 9",
            ],
        ),
        (
            step("bloom", amount={"v": 1}),
            ['step 1 (bloom): amount must be a number or {"v": number, "vary": number}'],
        ),
        (step("curve", channel="luma"), ['step 1 (curve): channel must be one of rgb, r, g, b, not "luma"']),
        (
            step("curve", points=[[0.5, 0], [0.5, 1]]),
            ["step 1 (curve): points must rise by at least 0.001 in input from row to row"],
        ),
        (
            step("curve", points=[[x / 16, 0.5] for x in range(17)]),
            ["step 1 (curve): points must be a list of 2 to 16 rows [input, output]"],
        ),
        (
            step("gradient_map", stops=[[0, "#000000"], [1, "white"]]),
            ['step 1 (gradient_map): stops row 2 colour must be a colour such as "#ffcc88", not "white"'],
        ),
        (step("light_leak", colours=[]), ["step 1 (light_leak): colours must be a list of 1 to 4 colours"]),
        (
            {"version": 1, "full_at": 0, "steps": [{"op": "flatten"}] * 25, "name": "x"},
            [
                'unknown entry "name"',
                "full_at must be between 0.05 and 1, not 0",
                "a recipe must have 1 to 24 steps, not 25",
                "a recipe may paint 3 times (flatten, brush, watercolour), not 25",
            ],
        ),
        (
            {"version": 1, "steps": [[], {}]},
            ["step 1: must be an object, not a list", "step 2: there is no op nothing"],
        ),
    ],
)
def test_wrong_recipe_gets_all_its_sentences(recipe, expected):
    assert recipes.problems(recipe) == expected


def test_blend_reaches_the_full_look_at_full_at():
    assert [recipes.blend({"full_at": 0.8}, strength) for strength in (0, 0.4, 0.8, 1)] == [0, 0.5, 1, 1]
    assert recipes.blend({}, 0.7) == 0.7


def test_varied_number_stays_within_its_limits():
    varied = {"op": "light_leak", "amount": {"v": 0.9, "vary": 0.5}, "count": {"v": 2, "vary": 1}}
    assert recipes.settings(varied, lambda: 1.0) == {"amount": 1, "count": 3}
    assert recipes.settings(varied, lambda: -1.0) == {"amount": pytest.approx(0.4), "count": 1}

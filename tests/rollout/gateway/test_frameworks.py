"""Agents of other frameworks, as they are, against the gateway on loopback; skipped where one is not installed."""

import pytest

from foreign import SpokenEngine, chat_policy, played
from lightning_mem1.context.contexts import drift

pytest.importorskip("openai")

POLICY = chat_policy()
CALL = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'


def spoken(agent, write):
    """The trajectory of an agent whose policy says what a function says, and the contexts that it saw."""
    engine = SpokenEngine(POLICY.tokenizer, write, limit=50_000)
    (trajectory,) = played(agent, 1, POLICY, engine)
    return trajectory, engine.seen


def test_openai_agents_calls_its_tools():
    sdk = pytest.importorskip("agents", reason="needs openai-agents")
    sdk.set_tracing_disabled(True)

    @sdk.function_tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async def agent(task, client):
        model = sdk.OpenAIChatCompletionsModel(model="policy", openai_client=client)
        mine = sdk.Agent(name="adder", instructions="add with the tool", tools=[add], model=model)
        result = await sdk.Runner.run(mine, task.prompt)
        return float(result.final_output == "it is five")

    trajectory, seen = spoken(agent, lambda context: "it is five" if "<|im_start|>tool" in context else CALL)
    assert (trajectory.error, trajectory.reward, len(trajectory.turns)) == ("", 1.0, 2)
    assert f"{CALL}{POLICY.tokenizer.eos_token}\n<|im_start|>tool\n5" in seen[1]
    assert drift(trajectory, "recorded") == 0


def test_langgraph_calls_its_tools():
    prebuilt = pytest.importorskip("langgraph.prebuilt", reason="needs langgraph")
    chat = pytest.importorskip("langchain_openai", reason="needs langchain-openai")

    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    async def agent(task, client):
        model = chat.ChatOpenAI(model="policy", base_url=str(client.base_url), api_key=client.api_key)
        mine = prebuilt.create_react_agent(model, [add])
        result = await mine.ainvoke({"messages": [("user", task.prompt)]})
        return float(result["messages"][-1].content == "it is five")

    trajectory, seen = spoken(agent, lambda context: "it is five" if "<|im_start|>tool" in context else CALL)
    assert (trajectory.error, trajectory.reward, len(trajectory.turns)) == ("", 1.0, 2)
    assert f"{CALL}{POLICY.tokenizer.eos_token}\n<|im_start|>tool\n5" in seen[1]
    assert drift(trajectory, "recorded") == 0


def test_smolagents_calls_its_tools_and_ends_with_its_answer():
    smol = pytest.importorskip("smolagents", reason="needs smolagents")

    @smol.tool
    def add(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: One.
            b: The other.
        """
        return a + b

    def agent(task, client):
        model = smol.OpenAIServerModel("policy", api_base=str(client.base_url), api_key=client.api_key)
        mine = smol.ToolCallingAgent(tools=[add], model=model, max_steps=3, verbosity_level=0)
        return float(str(mine.run(task.prompt)) == "5")

    answer = '<tool_call>{"name": "final_answer", "arguments": {"answer": "5"}}</tool_call>'
    said = iter([CALL, answer])
    trajectory, seen = spoken(agent, lambda context: next(said))
    assert (trajectory.error, trajectory.reward, len(trajectory.turns)) == ("", 1.0, 2)
    assert seen[1].count("observation:") == seen[0].count("observation:") + 1
    assert "calling tools:\n[{'id': 'call_0_0'" in seen[1]  # it writes calls in its own words
    assert drift(trajectory, "recorded") == 1


def test_mini_swe_agent_runs_its_commands(tmp_path, monkeypatch):
    # neither a list of prices nor a greeting is asked for, and its settings stay in this folder
    for name, value in {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "MSWEA_SILENT_STARTUP": "1",
        "MSWEA_GLOBAL_CONFIG_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    swe = pytest.importorskip("minisweagent.agents.default", reason="needs mini-swe-agent")
    from minisweagent.environments.local import LocalEnvironment
    from minisweagent.models.litellm_model import LitellmModel

    def agent(task, client):
        access = {"api_base": str(client.base_url), "api_key": client.api_key}
        model = LitellmModel(model_name="openai/policy", model_kwargs=access, cost_tracking="ignore_errors")
        place = LocalEnvironment(cwd=str(tmp_path))
        mine = swe.DefaultAgent(model, place, system_template="Use bash.", instance_template="{{task}}")
        return float(mine.run(task.prompt)["submission"].strip() == "it is five")

    def command(text):
        return f'<tool_call>{{"name": "bash", "arguments": {{"command": "{text}"}}}}</tool_call>'

    def write(context):
        submit = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT; echo it is five"
        return command(submit if "<|im_start|>tool" in context else "echo $((2 + 3))")

    trajectory, seen = spoken(agent, write)
    assert (trajectory.error, trajectory.reward, len(trajectory.turns)) == ("", 1.0, 2)
    assert "<returncode>0</returncode>\n<output>\n5\n</output>" in seen[1]
    assert drift(trajectory, "recorded") == 0

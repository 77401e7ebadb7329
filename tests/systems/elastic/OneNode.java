import java.util.List;
import java.util.Map;
import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;

/** One OpenSearch from its libraries: arguments are NAME=VALUE settings. */
public class OneNode {
  static class Embedded extends Node {
    Embedded(Settings settings) {
      super(
          InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), null, () -> "one"),
          List.of(
              org.opensearch.transport.Netty4Plugin.class,
              org.opensearch.analysis.common.CommonAnalysisPlugin.class,
              org.opensearch.painless.PainlessPlugin.class),
          false);
    }
  }

  public static void main(String[] arguments) throws Exception {
    Settings.Builder settings = Settings.builder();
    for (String argument : arguments) {
      String[] parts = argument.split("=", 2);
      settings.put(parts[0], parts[1]);
    }
    new Embedded(settings.build()).start();
    Thread.sleep(Long.MAX_VALUE);
  }
}
